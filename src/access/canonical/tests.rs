//! RFC 8785's own examples, and what it leaves open.

use proptest::prelude::*;

use super::*;

fn form(text: &str) -> String {
    canonical(text.as_bytes(), "").unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Section 3.2.2, without its number beyond 2^53, which `refused` has.
#[test]
fn the_example_of_the_standard_has_its_canonical_form() {
    let text = r#"{
        "numbers": [333333333.33333329, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    assert_eq!(
        form(text),
        "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,4.5,0.002,1e-27],\
         \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
    );
}

/// Section 3.2.3: by UTF-16 code units.
#[test]
fn members_are_in_the_order_of_the_standard() {
    let text = r#"{
        "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    assert_eq!(
        form(text),
        "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
         \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
    );
}

/// Appendix B, all but what is no number.
#[test]
fn numbers_are_written_as_the_standard_does() {
    for (bits, text) in [
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        assert_eq!(number(f64::from_bits(bits)), text, "{bits:x}");
    }
    assert_eq!(
        form("[1.0, -0, -0.0, 1e2, 0.1, 100, -9007199254740991, 1e-7]"),
        "[1,0,0,100,0.1,100,-9007199254740991,1e-7]"
    );
}

#[test]
fn one_member_is_left_out_where_it_stands_first() {
    let text = br#"{"b":{"_meta":1},"_meta":{"x":1},"a":[{"_meta":2}]}"#;
    assert_eq!(canonical(text, "_meta").unwrap(), r#"{"a":[{"_meta":2}],"b":{"_meta":1}}"#);
}

#[test]
fn what_readers_could_take_differently_is_refused() {
    for (text, why) in [
        (r#"{"a":1,"a":1}"#, "`a` is there more than once"),
        (r#"[{"a":1,"b":2,"\u0061":3}]"#, "`a` is there more than once"),
        ("9007199254740992", "a number beyond ±9007199254740991 is not the same for every reader"),
        ("-9007199254740992", "a number beyond ±9007199254740991 is not the same for every reader"),
        ("18446744073709551616", "a number beyond ±9007199254740991 is not the same for every reader"),
        ("1E30", "a number beyond ±9007199254740991 is not the same for every reader"),
        ("1e400", "number out of range"),
        (r#""\ud800""#, "unexpected end of hex escape"),
        ("{", "EOF while parsing an object"),
    ] {
        assert_eq!(canonical(text.as_bytes(), "").unwrap_err(), why, "{text}");
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(canonical(deep.as_bytes(), "").unwrap_err(), "recursion limit exceeded");
}

proptest! {
    /// Reading a canonical form gives it again, and a number's is that number.
    #[test]
    fn a_canonical_form_is_its_own(value in any::<f64>().prop_filter("exact", |f| f.abs() < 9e15), text in any::<String>()) {
        prop_assert_eq!(number(value).parse::<f64>().unwrap(), value);
        let one = form(&format!("{{{}:[{value:e}],\"b\":{}}}", quoted(&format!("{text}!")), quoted(&text)));
        prop_assert_eq!(form(&one), one);
    }
}
