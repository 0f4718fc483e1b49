//! What is copied is unchanged; what is redacted is gone; what is too much is cut and says so.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn copy(json: &str, redact: &[&str]) -> Parameters {
    let redact: Vec<String> = redact.iter().map(|&pointer| pointer.to_owned()).collect();
    Parameters::new(serde_json::from_str(json).unwrap(), &redact)
}

fn copied(json: &str, redact: &[&str]) -> String {
    copy(json, redact).value.get().to_owned()
}

#[test]
fn numbers_order_and_duplicates_survive() {
    let json = r#"{"b":1.0,"a":12345678901234567890123,"a":-0,"c":[1e2,{},[],null,"\u0041\"\\"]}"#;
    let copied = copy(json, &[]);
    assert_eq!(copied.value.get(), json);
    assert_eq!((copied.bytes, copied.redacted, copied.cut, copied.rewritten), (json.len() as u64, 0, 0, 0));
}

#[test]
fn white_space_between_values_goes() {
    assert_eq!(copied(" {\n\t\"a\" : [ 1 , 2 ] ,\r\n\"b\" : { } }\n", &[]), r#"{"a":[1,2],"b":{}}"#);
}

#[test]
fn a_pointer_redacts_what_it_names_and_not_its_neighbour() {
    let json =
        r#"{"arguments":{"password":{"x":[1]},"passwords":"kept","a/b":1,"m~n":2},"list":["a","b","c"]}"#;
    assert_eq!(
        copied(json, &["/arguments/password", "/arguments/a~1b", "/arguments/m~0n", "/list/1"]),
        r#"{"arguments":{"password":"[redacted]","passwords":"kept","a/b":"[redacted]","m~n":"[redacted]"},"list":["a","[redacted]","c"]}"#
    );
}

#[test]
fn a_key_cannot_hide_from_its_pointer() {
    let hidden = copy(r#"{"p":1,"\u0070":"secret","p":{"p":"secret"}}"#, &["/p"]);
    assert_eq!(hidden.value.get(), r#"{"p":"[redacted]","\u0070":"[redacted]","p":"[redacted]"}"#);
    assert_eq!(hidden.redacted, 3);
}

#[test]
fn the_empty_and_the_malformed_pointer_redact_everything() {
    for pointer in ["", "arguments", "$.x"] {
        assert_eq!(copied(r#"{"a":["]","}"],"b":"\"secret"}"#, &[pointer]), r#""[redacted]""#);
    }
}

#[test]
fn a_long_text_keeps_its_start_and_says_its_size() {
    let text = "é".repeat(5_000);
    let copied = copy(&format!(r#"{{"path":"/a","content":"{text}","after":1}}"#), &[]);
    let value: Value = serde_json::from_str(copied.value.get()).unwrap();
    let content = value["content"].as_str().unwrap();
    assert!(content.starts_with("ééé") && content.ends_with("é…[cut: 10000 bytes]"), "{content}");
    assert!(content.len() < TEXT_MOST + 40);
    assert_eq!((&value["path"], &value["after"], copied.cut), (&Value::from("/a"), &Value::from(1), 1));
}

#[test]
fn a_cut_does_not_split_an_escape_or_a_pair() {
    for unit in [r"\n", r"\u00e9", r"\ud83d\ude00"] {
        for shift in 0..12 {
            let json = format!("\"{}{}\"", "x".repeat(shift), unit.repeat(3_000));
            let value: Value = serde_json::from_str(&copied(&json, &[])).unwrap();
            assert!(value.as_str().unwrap().contains("…[cut: "));
        }
    }
}

#[test]
fn too_many_values_are_cut_and_the_rest_is_still_json() {
    let json = format!(r#"{{"a":[{}{{"b":"{}"}}]}}"#, r#"{"k":1},"#.repeat(50_000), "x".repeat(90_000));
    let copied = copy(&json, &[]);
    assert_eq!(copied.cut, 1);
    assert!(copied.value.get().len() < WHOLE_MOST + TEXT_MOST);
    assert!(
        serde_json::from_str::<Value>(copied.value.get()).unwrap()["a"].as_array().unwrap().len() > 1_000
    );
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let json = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let copied = copy(&json, &["/0/1"]);
    let expected = format!("{}\"[cut: {} bytes]\"{}", "[".repeat(48), 2_000_000 - 96, "]".repeat(48));
    assert_eq!(copied.value.get(), expected);
}

#[test]
fn what_readers_refuse_becomes_text() {
    let odd = copy(r#"{"n":1e999,"\udc00":"a\ud800b\ud83d\ude00\ud83d","m":-1E+400}"#, &[]);
    assert_eq!(odd.value.get(), r#"{"n":"1e999","\\udc00":"a\\ud800b\ud83d\ude00\\ud83d","m":"-1E+400"}"#);
    assert_eq!(odd.rewritten, 5);
    serde_json::from_str::<Value>(odd.value.get()).unwrap();
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_copied_unchanged(value in json()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let copied = copied(&text, &[]);
            prop_assert_eq!(copied, value.to_string());
        }
    }

    #[test]
    fn a_redacted_value_is_nowhere(value in json(), key in "[a-c/~]{0,3}", outer in json()) {
        let secret = Value::from(vec![value, Value::from("the-secret")]);
        let mut members = serde_json::Map::new();
        members.insert("outer".to_owned(), outer);
        members.insert(key.clone(), secret);
        let text = Value::Object(members).to_string();
        let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        let copied = copied(&text, &[&pointer]);
        prop_assert!(!copied.contains("the-secret"));
        prop_assert!(copied.contains(REDACTED));
    }
}
