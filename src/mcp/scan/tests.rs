//! Tests of [`super`]: the verdict is `serde_json`'s, for any bytes and any pieces. Never: part of a build.

use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::mcp::scan::*;

fn scan(chunks: &[&[u8]]) -> Result<Scanner, Fault> {
    let mut scanner = Scanner::new();
    for chunk in chunks {
        scanner.feed(chunk)?;
    }
    scanner.finish()?;
    Ok(scanner)
}

fn serde_accepts(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\\u00e9"),
        Just("\\ud83d"),
        Just("true"),
        Just("null"),
        Just("fals"),
        Just("0"),
        Just("-1.5e+3"),
        Just("1."),
        Just("\"id\""),
        Just("\"a\":1"),
        Just(" "),
        Just("é"),
        Just("\u{1f600}"),
        Just("\u{1}"),
        Just("{\"k\":[1,2,{}]}"),
        Just("E"),
        Just("+"),
        Just("01"),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| if value.is_finite() {
            value.to_string()
        } else {
            "-0.0e-7".to_owned()
        }),
        ".{0,90}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("\"\\ud83d\\ude00\\/\\u0000\"".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((".{0,4}", inner), 0..5).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("{} :{value}", serde_json::to_string(key).unwrap()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn verdict_is_serdes_for_any_bytes(text in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), near_json()], cut in 0usize..40) {
        let cut = cut.min(text.len());
        prop_assert_eq!(scan(&[&text]).is_ok(), serde_accepts(&text));
        prop_assert_eq!(scan(&[&text[..cut], &text[cut..]]).is_ok(), serde_accepts(&text));
    }

    #[test]
    fn verdict_does_not_depend_on_the_pieces(text in json(), size in 1usize..9) {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        prop_assert!(scan(&pieces).is_ok());
        prop_assert_eq!(scan(&pieces).unwrap().spans().clone(), scan(&[text.as_bytes()]).unwrap().spans().clone());
    }

    #[test]
    fn every_cut_can_be_completed(text in json(), cut in 0usize..4000) {
        let cut = cut % (text.len() + 1);
        let mut scanner = Scanner::new();
        scanner.feed(&text.as_bytes()[..cut]).unwrap();
        let mut whole = text.as_bytes()[..cut].to_vec();
        scanner.complete(0, &mut whole);
        prop_assert!(serde_accepts(&whole), "{:?}", String::from_utf8_lossy(&whole));
    }
}

#[test]
fn members_are_found_in_any_order_and_however_the_key_is_escaped() {
    let line = br#"{"result":{"isError":true,"x":{"isError":false}},"jsonrpc":"2.0","\u0069d" : 3 }"#;
    let scanner = scan(&[line]).unwrap();
    assert_eq!(&line[scanner.spans().id.clone().unwrap()], b"3");
    assert_eq!(&line[scanner.spans().jsonrpc.clone().unwrap()], b"\"2.0\"");
    assert!(scanner.tool_error());
    assert!(!scanner.duplicate());
}

#[test]
fn a_tool_error_is_only_the_member_of_the_result() {
    for line in [
        r#"{"result":{"isError":false}}"#,
        r#"{"result":{"isError":"true"}}"#,
        r#"{"result":{"isError":[true]}}"#,
        r#"{"result":{"isError":{"a":true},"b":true}}"#,
        r#"{"params":{"isError":true}}"#,
        r#"{"result":{"a":{"isError":true}}}"#,
        r#"{"result":[true],"isError":true}"#,
    ] {
        assert!(!scan(&[line.as_bytes()]).unwrap().tool_error(), "{line}");
    }
}

#[test]
fn duplicates_are_seen() {
    assert!(scan(&[br#"{"id":1,"i\u0064":2}"#]).unwrap().duplicate());
    assert!(!scan(&[br#"{"x":1,"x":2}"#]).unwrap().duplicate());
}

#[test]
fn depth_is_bounded() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(scan(&[deep(MAX_DEPTH).as_bytes()]).is_ok());
    assert_eq!(scan(&[deep(MAX_DEPTH + 1).as_bytes()]).unwrap_err(), Fault::Depth);
}
