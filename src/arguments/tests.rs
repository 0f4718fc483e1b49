//! Schemas and what fits them. The official suite is compared with in `suite`.

use serde_json::{Value, json};

use super::{Author, Found, Mistake, Schema, Wider, compile};

fn schema(document: &Value) -> Schema {
    compile(document, Author::Server).unwrap_or_else(|mistakes| panic!("{document}: {mistakes:?}"))
}

fn found(document: &Value, value: &Value) -> Vec<Found> {
    schema(document).check(value).err().unwrap_or_default()
}

fn mistakes(document: &Value) -> Vec<String> {
    let told = |mistake: Mistake| format!("{} {}", mistake.at, mistake.told);
    compile(document, Author::Server).err().unwrap_or_default().into_iter().map(told).collect()
}

#[test]
fn each_keyword_lets_through_what_fits_and_nothing_else() {
    for (document, fits, not) in [
        (json!({"type": "integer"}), json!([1, 1.0, -3, 1e20]), json!([1.5, "1", null, true])),
        (json!({"type": ["string", "null"]}), json!(["", null]), json!([0, false, [], {}])),
        (
            json!({"enum": [1, "a", {"x": [1]}]}),
            json!([1.0, "a", {"x": [1.0]}]),
            json!([true, "1", {"x": []}]),
        ),
        (json!({"const": {"a": 1, "b": 2}}), json!([{"b": 2, "a": 1.0}]), json!([{"a": 1}, null])),
        (json!({"minimum": 1, "exclusiveMaximum": 2}), json!([1, 1.99, "x"]), json!([0.99, 2, 1e300])),
        (
            json!({"maximum": 9_007_199_254_740_992_u64}),
            json!([9_007_199_254_740_992_u64]),
            json!([9_007_199_254_740_993_u64]),
        ),
        (json!({"multipleOf": 0.01}), json!([0.07, 1, 19.99]), json!([0.015])),
        (json!({"minLength": 2, "maxLength": 3}), json!(["éé", "😀😀😀", 7]), json!(["é", "aaaa"])),
        (json!({"pattern": "^a+$"}), json!(["aa", 7]), json!(["", "ab", "a\n"])),
        (
            json!({"uniqueItems": true}),
            json!([[1, "1", [1], {"a": 1}]]),
            json!([[1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]]),
        ),
        (
            json!({"prefixItems": [{"type": "string"}], "items": false}),
            json!([[], ["a"]]),
            json!([[1], ["a", "b"]]),
        ),
        (
            json!({"contains": {"const": 1}, "maxContains": 2}),
            json!([[1], [1, 2, 1]]),
            json!([[], [2], [1, 1, 1]]),
        ),
        (json!({"required": ["a"]}), json!([{"a": null}, 7]), json!([{}, {"A": 1}])),
        (json!({"dependentRequired": {"a": ["b"]}}), json!([{}, {"a": 1, "b": 1}]), json!([{"a": 1}])),
        (json!({"propertyNames": {"pattern": "^[a-z]+$"}}), json!([{"a": 1}]), json!([{"A": 1}])),
        (
            json!({"properties": {"a": {"type": "string"}}, "patternProperties": {"^x-": true}, "additionalProperties": false}),
            json!([{"a": "", "x-y": 1}]),
            json!([{"a": 1}, {"b": 1}, {"x": 1}]),
        ),
        (json!({"anyOf": [{"type": "string"}, {"minimum": 3}]}), json!(["", 3, null]), json!([2])),
        (json!({"oneOf": [{"minimum": 1}, {"multipleOf": 2}]}), json!([3, -2]), json!([2, -1, "fits both"])),
        (json!({"not": {"required": ["a"]}}), json!([{}]), json!([{"a": 1}])),
        (
            json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 0}}),
            json!([{}, {"a": 1, "b": 1}]),
            json!([{"a": 1}, {"c": 1}]),
        ),
        (
            json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}),
            json!([[], [[], [[]]]]),
            json!([[[[1]]], 1]),
        ),
        (
            json!({"allOf": [{"properties": {"a": true}}], "properties": {"b": true}, "unevaluatedProperties": false}),
            json!([{"a": 1, "b": 1}]),
            json!([{"c": 1}]),
        ),
        (
            json!({"prefixItems": [true], "unevaluatedItems": {"type": "string"}}),
            json!([[1, "a"]]),
            json!([[1, 2]]),
        ),
        // What only describes, and what nobody knows.
        (json!({"format": "email", "title": 7, "x-unknown": [1]}), json!(["no address", 1]), json!([])),
    ] {
        let schema = schema(&document);
        for value in fits.as_array().unwrap() {
            assert_eq!(schema.check(value), Ok(()), "{document} {value}");
        }
        for value in not.as_array().unwrap() {
            assert!(schema.check(value).is_err(), "{document} {value}");
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_would_be_right() {
    let document = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "maxLength": 4},
            "mode": {"enum": ["read", "write"]},
            "lines": {"type": "array", "items": {"minimum": 1}, "maxItems": 2},
            "where": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["url"]}]},
        },
        "required": ["path", "mode"],
        "additionalProperties": false,
    });
    let value = json!({"path": "/etc/passwd", "lines": [1, 0, 5], "where": {"a/b": 1}, "pathh": ""});
    let told: Vec<_> = found(&document, &value)
        .into_iter()
        .map(|found| (found.at, found.schema, found.keyword, found.told))
        .collect();
    let expected = [
        ("", "", "required", "must have the member `mode`"),
        ("/path", "/properties/path", "maxLength", "must have at most 4 characters, and has 11"),
        ("/lines/1", "/properties/lines/items", "minimum", "must be at least 1"),
        ("/lines", "/properties/lines", "maxItems", "must have at most 2 items, and has 3"),
        (
            "/where",
            "/properties/where",
            "anyOf",
            "must fit one of 2 alternatives, and fits none (1: `/where` must be a string, not an object; 2: `/where` must have the member `url`)",
        ),
        (
            "/pathh",
            "",
            "additionalProperties",
            "must not be there; known are `lines`, `mode`, `path`, `where`",
        ),
    ];
    let mut told: Vec<_> = told
        .iter()
        .map(|(at, schema, keyword, told)| (at.as_str(), schema.as_str(), *keyword, told.as_str()))
        .collect();
    told.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(told, expected);
    // No value is quoted: it may be a secret.
    assert!(told.iter().all(|(.., told)| !told.contains("passwd")));
}

#[test]
fn what_would_let_a_value_through_does() {
    for (document, value, wider) in [
        (json!({"maxLength": 2}), json!("abc"), Some(Wider::Value(json!(3)))),
        (json!({"minItems": 2}), json!([]), Some(Wider::Value(json!(0)))),
        (json!({"maximum": 2}), json!(2.5), Some(Wider::Value(json!(2.5)))),
        (json!({"enum": ["a"]}), json!("b"), Some(Wider::Value(json!(["a", "b"])))),
        (json!({"pattern": "a"}), json!("b"), None),
        (json!({"additionalProperties": false}), json!({"x": 1}), Some(Wider::Property("x".to_owned()))),
    ] {
        let first = found(&document, &value).remove(0);
        assert_eq!(first.wider, wider);
        let mut document = document;
        match first.wider {
            Some(Wider::Value(enough)) => document[first.keyword] = enough,
            Some(Wider::Property(name)) => document["properties"] = json!({name: {}}),
            None => continue,
        }
        assert_eq!(found(&document, &value), []);
    }
}

#[test]
fn older_drafts_mean_what_they_meant() {
    let seven = "http://json-schema.org/draft-07/schema#";
    let beside = json!({"$schema": seven, "definitions": {"s": {"type": "string"}}, "$ref": "#/definitions/s", "maxLength": 1});
    assert_eq!(found(&beside, &json!("long")), []);
    let tuple = json!({"$schema": seven, "items": [{"type": "string"}], "additionalItems": false, "dependencies": {"a": ["b"]}});
    assert!(!found(&tuple, &json!(["a", "b"])).is_empty() && !found(&tuple, &json!({"a": 1})).is_empty());
    let four =
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": true});
    assert!(!found(&four, &json!(3)).is_empty() && found(&four, &json!(2.9)).is_empty());
}

#[test]
fn what_cannot_be_checked_is_a_mistake_and_nothing_is_fetched() {
    let deep = (0..70).fold(json!({}), |inner, _| json!({"items": inner}));
    for (document, told) in [
        (
            json!({"$ref": "https://example.com/s"}),
            "/$ref leads out of the schema, and nothing is fetched (`https://example.com/s`)",
        ),
        (
            json!({"$ref": "file:///etc/passwd"}),
            "/$ref leads out of the schema, and nothing is fetched (`file:///etc/passwd`)",
        ),
        (
            json!({"$ref": "other.json#/a"}),
            "/$ref leads out of the schema, and nothing is fetched (`other.json#/a`)",
        ),
        (json!({"$ref": "#/$defs/none"}), "/$ref leads to nothing (`#/$defs/none`)"),
        (json!({"$ref": "#none"}), "/$ref names an anchor that is not there (`#none`)"),
        (
            json!({"$dynamicRef": "#a"}),
            "/$dynamicRef is a reference whose target depends on the way there, which is not offered",
        ),
        (
            json!({"$schema": "https://example.com/mine"}),
            "/$schema names a kind of schema that is not known here",
        ),
        (
            json!({"pattern": r"(a)\1"}),
            "/pattern is a regular expression that cannot be used: it refers back to a group, which takes an unbounded time",
        ),
        (
            json!({"properties": {"a": {"type": "text"}}}),
            "/properties/a/type must be one or several of: null, boolean, object, array, number, string, integer",
        ),
        (json!({"items": 7}), "/items must be a schema: an object, `true` or `false`"),
        (json!({"required": true}), "/required must be an array of names"),
        (json!({"maxLength": -1}), "/maxLength must be a whole number, 0 or more"),
        (json!([]), " must be a schema: an object, `true` or `false`"),
    ] {
        assert_eq!(mistakes(&document), [told], "{document}");
    }
    assert!(compile(&deep, Author::Server).is_ok(), "depth is the reader's limit");
    let many: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("p{n}"), json!({}))).collect();
    assert!(mistakes(&json!({"properties": many}))[0].contains("more than 10000 schemas"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let document = json!({"properties": {"a": {"type": "x"}, "b": {"maxLength": "y"}}, "required": 1});
    assert_eq!(mistakes(&document).len(), 3);
}

#[test]
fn no_schema_and_no_value_takes_long() {
    let over = |document: &Value, value: &Value| {
        let found = found(document, value);
        assert_eq!(found[0].told, "would take too long to check; send less", "{document}");
    };
    over(&json!({"$ref": "#"}), &json!(1));
    over(&json!({"not": {"$ref": "#"}}), &json!(1));
    over(
        &json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        &json!(1),
    );
    // 2 to the 40 ways through.
    let mut defs = serde_json::Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        defs.insert(format!("d{level}"), json!({"oneOf": [next, next]}));
    }
    defs.insert("d40".to_owned(), json!(false));
    over(&json!({"$ref": "#/$defs/d0", "$defs": defs}), &json!(1));
    let large: Vec<Value> = (0..30_000).map(|n| json!("x".repeat(2000) + &n.to_string())).collect();
    over(&json!({"uniqueItems": true}), &json!(large));
    // A large program and a long text.
    over(&json!({"pattern": "(a{1,40}){1,40}b"}), &json!("a".repeat(8_000_000)));
    // What only has many items is no trouble.
    let many: Vec<Value> = (0..100_000).map(|n| json!(n)).collect();
    assert_eq!(found(&json!({"uniqueItems": true, "items": {"type": "integer"}}), &json!(many)), []);
}
