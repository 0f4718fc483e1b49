//! Every form is found wherever it stands, and pieces change nothing.

use proptest::prelude::*;

use super::*;

const SECRET: &[u8] = b"s3cr3t/+ va\"lue\\-\xc3\xa4!?";

fn forms() -> Arc<Forms> {
    Arc::new(Forms::new([("one", SECRET), ("two", b"plain-token_0123".as_slice())]))
}

/// Base64 as everybody else makes it.
fn encoded(bytes: &[u8], alphabet: &[u8], pad: bool) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            text.push(char::from(alphabet[(bits >> (18 - 6 * at) & 63) as usize]));
        }
        if pad {
            text.push_str(&"="[..].repeat(3 - group.len()));
        }
    }
    text
}

const STANDARD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn percent(bytes: &[u8], upper: bool, all: bool) -> String {
    let escape = |byte: &u8| match (all, byte.is_ascii_alphanumeric(), upper) {
        (false, true, _) => char::from(*byte).to_string(),
        (_, _, true) => format!("%{byte:02X}"),
        (_, _, false) => format!("%{byte:02x}"),
    };
    bytes.iter().map(escape).collect()
}

/// Every form of a secret as text, with its name.
fn all(secret: &[u8]) -> Vec<(Form, String)> {
    let text = String::from_utf8_lossy(secret).into_owned();
    let json = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let utf16: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        (Form::Exact, text.clone()),
        (Form::Json, utf16.clone()),
        (Form::Json, json(&utf16)),
        (Form::Hex, hex.clone()),
        (Form::Hex, hex.to_uppercase()),
        (Form::Url, percent(secret, true, false)),
        (Form::Url, percent(secret, false, true)),
        (Form::Url, percent(secret, true, false).replace("%20", "+")),
    ];
    if json(&text) != text {
        all.extend([(Form::Json, json(&text)), (Form::Json, json(&json(&text)))]);
        all.push((Form::Json, json(&text).replace('/', "\\/")));
    }
    for before in ["", "a", "ab", "user:"] {
        for behind in ["", "x", "xy", "xyz"] {
            let bytes = [before.as_bytes(), secret, behind.as_bytes()].concat();
            for (alphabet, pad) in [(STANDARD, true), (STANDARD, false), (URL_SAFE, true), (URL_SAFE, false)]
            {
                all.push((Form::Base64, encoded(&bytes, alphabet, pad)));
            }
            let standard = encoded(&bytes, STANDARD, true);
            all.push((Form::Base64, standard.replace('/', "\\/")));
            all.push((Form::Base64, standard.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")));
        }
    }
    all
}

#[test]
fn every_form_is_replaced_wherever_it_stands() {
    let forms = forms();
    for (form, text) in all(SECRET) {
        for (before, behind) in [("", ""), ("a ", " b"), ("{\"x\":\"", "\"}"), ("=", "&")] {
            let whole = format!("{before}{text}{behind}");
            let mut hits = Vec::new();
            let mut out = Vec::new();
            Stream::of_text(&forms).push(whole.as_bytes(), true, &mut out, &mut hits);
            let out = String::from_utf8(out).unwrap();
            assert_eq!(hits, [Hit { secret: 0, form }], "{whole} became {out}");
            assert!(out.starts_with(before) && out.ends_with(behind), "{whole} became {out}");
            let rest = out[before.len()..out.len() - behind.len()].replace("[redacted:one]", "");
            // Of base64 what stands beside the secret in the same bytes stays.
            let most = if form == Form::Base64 { 16 } else { 0 };
            assert!(rest.len() <= most, "{whole} became {out}");
        }
    }
}

/// Ways to write a character of base64.
const WRITTEN: [fn(char) -> String; 6] = [
    |character| character.to_string(),
    |character| character.to_string().replace('/', r"\/"),
    |character| format!(r"\u{:04x}", u32::from(character)),
    |character| format!(r"\\u{:04x}", u32::from(character)),
    |character| format!("%{:02X}", u32::from(character)),
    |character| format!(r"\u0025{:02x}", u32::from(character)),
];

#[test]
fn no_bit_of_the_secret_is_left_beside_a_replacement() {
    // Two secrets that differ in their first and last bits only leave the same, however the text is written and broken.
    let left = |secret: &[u8],
                place: usize,
                behind: usize,
                (write, width, end): (fn(char) -> String, usize, &str)| {
        let bytes = [&b"AB"[..place], secret, &b"YZ"[..behind]].concat();
        let forms = Forms::new([("s", secret)]);
        let characters: Vec<char> = encoded(&bytes, STANDARD, true).chars().collect();
        let lines: Vec<String> =
            characters.chunks(width).map(|line| line.iter().copied().map(write).collect()).collect();
        let text = lines.join(end);
        let out = forms.once(text.as_bytes()).unwrap();
        let line = forms.line(format!("[\"\\n{text}\"]").as_bytes(), &mut Vec::new());
        let parsed = line.as_deref().map(serde_json::from_slice::<serde_json::Value>);
        if !end.contains('\n') {
            parsed.unwrap().unwrap();
        }
        (String::from_utf8(out).unwrap(), line.map(|line| String::from_utf8(line).unwrap()))
    };
    for place in 0..3 {
        for behind in 0..3 {
            for (a, b) in [(0x21, 0x7e), (0x40, 0x3f), (0x55, 0x2a), (0xff, 0x00)] {
                let (one, other) = (
                    [[a; 1].as_slice(), b"0123456789", &[a]].concat(),
                    [[b; 1].as_slice(), b"0123456789", &[b]].concat(),
                );
                for write in WRITTEN {
                    for (width, end) in [
                        (99, ""),
                        (1, "\n"),
                        (2, r"\n"),
                        (3, r"\r\n"),
                        (4, "\r\n"),
                        (5, r"\\n"),
                        (7, r"\u000a"),
                    ] {
                        let how = (write, width, end);
                        assert_eq!(
                            left(&one, place, behind, how),
                            left(&other, place, behind, how),
                            "{place} {behind} {width} {end:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn base64_that_is_broken_into_lines_is_found() {
    let forms = forms();
    let text = encoded(SECRET, STANDARD, true);
    for broken in [format!("{}\n{}", &text[..12], &text[12..]), format!("{}\\r\\n{}", &text[..9], &text[9..])]
    {
        let out = String::from_utf8(forms.once(broken.as_bytes()).unwrap()).unwrap();
        assert!(out.starts_with("[redacted:one]"), "{out}");
    }
}

#[test]
fn each_line_of_a_secret_is_found_alone() {
    let key = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQEF \nshort\n-----END KEY-----";
    let forms = Arc::new(Forms::new([("key", key.as_slice())]));
    let mut hits = Vec::new();
    let out = forms.line(b"{\"text\":\"a kqhkiG9w0BAQEF b MIIEvQIBADANBg short\"}", &mut hits).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "{\"text\":\"a [redacted:key] b [redacted:key] short\"}");
    assert_eq!(hits.iter().map(|hit| hit.form).collect::<Vec<_>>(), [Form::Line, Form::Line]);
    let whole = [b"x".as_slice(), key, b"y"].concat();
    assert_eq!(forms.once(&whole).unwrap(), b"x[redacted:key]y");
}

#[test]
fn a_replacement_leaves_json() {
    let forms = Forms::new([("n", b"123456789".as_slice()), ("t", b"nabcdefgh".as_slice())]);
    for (line, wanted) in [
        (r#"{"a":123456789,"b":"123456789"}"#, r#"{"a":"[redacted:n]","b":"[redacted:n]"}"#),
        (r#"{"a":"x\nabcdefgh\"y","b":[123456789]}"#, r#"{"a":"x[redacted:t]\"y","b":["[redacted:n]"]}"#),
        (r#"{"\u0031234567\u00389":1}"#, r#"{"[redacted:n]":1}"#),
        // In base64 behind two other bytes: the character before shares bits, and may stand in the line before.
        (r#"{"a":"\tExMjM0NTY3ODk"}"#, r#"{"a":"\t[redacted:n]"}"#),
        (r#"{"a":"x\n\tExMjM0NTY3ODk"}"#, r#"{"a":"x\n\t[redacted:n]"}"#),
        (r#"{"a":"\u00e4xMjM0NTY3ODk"}"#, r#"{"a":"\u00e4[redacted:n]"}"#),
        (r#"{"a":"\nxMjM0NTY3ODk"}"#, r#"{"a":"\n[redacted:n]"}"#),
        (r#"{"a":"YWI\nxMjM0NTY3ODk"}"#, r#"{"a":"YW[redacted:n]"}"#),
        (r#"{"a":"Y\/xMjM0NTY3ODk"}"#, r#"{"a":"Y[redacted:n]"}"#),
        (r#"{"a":"Y\u0057\nxMjM0NTY3ODk"}"#, r#"{"a":"Y[redacted:n]"}"#),
        (r#"{"a":"\\\u0057xMjM0NTY3ODk"}"#, r#"{"a":"\\[redacted:n]"}"#),
        // A form that begins within an escape.
        (r#"{"a":"x\u0123456789"}"#, r#"{"a":"x[redacted:n]"}"#),
    ] {
        let out = forms.line(line.as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), wanted);
        serde_json::from_slice::<serde_json::Value>(&out).unwrap();
    }
    assert_eq!(forms.line(br#"{"a":12345678}"#, &mut Vec::new()), None);
}

#[test]
fn the_start_of_a_secret_at_the_end_of_a_text_is_no_secrets_end() {
    let forms = forms();
    assert_eq!(forms.once(b"so: plain-tok").unwrap(), b"so: [redacted:two]");
    assert_eq!(forms.once(b"so: plain-"), None);
}

#[test]
fn what_waits_is_read_again_seldom() {
    let mut random = 1_u64;
    let mut digit = |_| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"0123456789abcdef"[(random >> 60) as usize]
    };
    let long: Vec<u8> = (0..super::super::LONGEST).map(&mut digit).collect();
    let forms = Arc::new(Forms::new([("long", long.as_slice())]));
    let (mut out, mut hits) = (Vec::new(), Vec::new());
    let mut stream = Stream::of_text(&forms);
    for byte in long.iter().take(long.len() - 1) {
        stream.push(&[*byte], false, &mut out, &mut hits);
    }
    // Each time while there is little, and from then on when it has grown by an eighth.
    assert!(stream.scans < SHORT + 50, "{}", stream.scans);
    assert!(out.is_empty() && hits.is_empty());
    stream.push(b"?", true, &mut out, &mut hits);
    assert_ne!(out.len(), 0);
}

/// A text with forms of secrets in it, and pieces of such.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let known = all(SECRET).into_iter().chain(all(b"plain-token_0123")).map(|(_, text)| text);
    let known: Vec<String> = known
        .chain(
            ["\\", "\"", "%", "%2", "%2F", "\\u00", "\\u0041", "\n", "\\n", "\\\\n", "\\/", "A", "=", "/"]
                .map(str::to_owned),
        )
        .collect();
    let piece = (prop::sample::select(known), 0_usize..60, any::<bool>()).prop_map(|(text, cut, whole)| {
        let bytes = text.into_bytes();
        if whole { bytes } else { bytes[..cut.min(bytes.len())].to_vec() }
    });
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A line of JSON with forms of secrets in it, and what they can be beside.
fn lines() -> impl Strategy<Value = String> {
    let known = all(SECRET).into_iter().chain(all(b"plain-token_0123")).map(|(_, text)| text);
    // As they are in a string, and as a string.
    // Without the characters before, of which one shares bits with the secret.
    let bare = [(b"a".as_slice(), 2), (b"ab", 3)].into_iter().flat_map(|(before, first)| {
        [SECRET, b"plain-token_0123"].map(|secret| {
            (Form::Base64, encoded(&[before, secret].concat(), STANDARD, true).split_off(first))
        })
    });
    let known = known.chain(bare.cycle().take(60).map(|(_, text)| text)).flat_map(|text| {
        let quoted = serde_json::to_string(&text).unwrap();
        let plain = serde_json::from_str::<String>(&format!("\"{text}\"")).is_ok();
        [quoted[1..quoted.len() - 1].to_owned()].into_iter().chain(plain.then_some(text))
    });
    let beside =
        [r"\n", r"\r\n", r"\t", r"\u00e4", r"\u0051", r"\/", r"\\", r#"\""#, r"\\n", "%2F", "Q", " ", "="];
    let known: Vec<String> =
        known.chain(beside.iter().cycle().take(200).map(|text| (*text).to_owned())).collect();
    prop::collection::vec(prop::sample::select(known), 0..8)
        .prop_map(|pieces| format!("[\"{}\"]", pieces.concat()))
}

proptest! {
    #[test]
    fn a_line_of_json_stays_one(line in lines()) {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
        if let Some(out) = forms().line(line.as_bytes(), &mut Vec::new()) {
            let text = String::from_utf8_lossy(&out);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{line} became {text}");
        }
    }

    #[test]
    fn pieces_change_nothing(text in texts(), cuts in prop::collection::vec(0_usize..200, 0..12), json: bool) {
        let forms = forms();
        let stream = || if json { Stream::of_line(&forms) } else { Stream::of_text(&forms) };
        let (mut whole, mut known) = (Vec::new(), Vec::new());
        stream().push(&text, true, &mut whole, &mut known);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let (mut out, mut hits, mut pieces) = (Vec::new(), Vec::new(), stream());
        for pair in cuts.windows(2) {
            pieces.push(&text[pair[0]..pair[1]], false, &mut out, &mut hits);
        }
        pieces.push(b"", true, &mut out, &mut hits);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole));
        prop_assert_eq!(hits, known);
    }

    #[test]
    fn no_secret_is_left(text in texts(), secret in prop::sample::select(vec![SECRET, b"plain-token_0123"])) {
        let forms = forms();
        let mut out = Vec::new();
        Stream::of_text(&forms).push(&text, true, &mut out, &mut Vec::new());
        prop_assert!(!out.windows(secret.len()).any(|window| window == secret));
        let encoded = encoded(secret, STANDARD, false);
        let stable = &encoded[..secret.len() * 8 / 6];
        prop_assert!(!out.windows(stable.len()).any(|window| window == stable.as_bytes()));
    }
}

/// What waits because it may go on is the beginning of a form, and nothing else.
#[test]
fn a_pause_keeps_nothing_back_but_what_may_be_a_secret() {
    let forms = Arc::new(Forms::new([("token", b"plain-token_0123".as_slice())]));
    let mut stream = Stream::of_text(&forms);
    let (mut out, mut hits) = (Vec::new(), Vec::new());
    stream.push(b"data: one\n\n", false, &mut out, &mut hits);
    stream.settle(&mut out, &mut hits);
    assert_eq!(out, b"data: one\n\n");
    stream.push(b"data: plain-tok", false, &mut out, &mut hits);
    stream.settle(&mut out, &mut hits);
    assert_eq!(out, b"data: one\n\ndata: ");
    stream.push(b"en_0123 two", false, &mut out, &mut hits);
    stream.settle(&mut out, &mut hits);
    assert_eq!((out.as_slice(), hits.len()), (&b"data: one\n\ndata: [redacted:token] two"[..], 1));
}
