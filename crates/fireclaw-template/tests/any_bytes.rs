//! No text makes the reader panic, and what it says about one can be shown.

use fireclaw_template::{Format, Source, parse};
use proptest::prelude::*;

/// Reads it in both formats and shows what is wrong.
fn read(text: &[u8]) {
    for format in [Format::Toml, Format::Json] {
        let parsed = parse(&Source { name: "any", file: "any", text, format, directory: None });
        let mistakes = parsed.template.as_ref().err().into_iter().flatten();
        for mistake in mistakes.chain(&parsed.warnings) {
            assert!(mistake.line >= 1 && mistake.column >= 1 && mistake.length >= 1);
            let shown = mistake.to_string();
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        }
        assert!(parsed.template.is_ok() || parsed.template.is_err_and(|found| !found.is_empty()));
    }
}

/// Pieces of templates, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("model"),
        Just("nick"),
        Just("cpus"),
        Just("memory"),
        Just("network"),
        Just("rules"),
        Just("schedule"),
        Just("skills"),
        Just("command"),
        Just("x.y"),
        Just("[rules]"),
        Just("ä"),
    ];
    let value = prop_oneof![
        Just("\"a\"".to_owned()),
        Just("'* * * * *'".to_owned()),
        Just("[\"a\", 1, {}]".to_owned()),
        Just("{ allow = [\"a:1\"], b = 2 }".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "\\PC{0,12}",
        "\"\\PC{0,12}\"",
    ];
    prop_oneof![
        6 => (name, value).prop_map(|(name, value)| format!("{name} = {value}\n")),
        1 => Just("[[rules]]\n".to_owned()),
        1 => Just("[network]\n".to_owned()),
        1 => "\\PC{0,20}\n",
        1 => Just("\"\"\"".to_owned()),
        1 => Just("\r\n\t".to_owned()),
    ]
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn any_text(text in "[\\x00-\\x7f]{0,200}|\\PC{0,100}") {
        read(text.as_bytes());
    }

    #[test]
    fn nearly_templates(pieces in proptest::collection::vec(piece(), 0..12)) {
        read(pieces.concat().as_bytes());
    }

    #[test]
    fn nearly_json(pairs in proptest::collection::vec(
        ("[a-zA-Z_]{0,8}|model|nick|mem|rules|network", "\\PC{0,10}|\"a\"|[0-9]{1,20}|\\[\\]|\\{\\}|\\[\\{\"tool\":1\\}\\]"),
        0..8,
    )) {
        let fields: Vec<String> =
            pairs.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        read(format!("{{{}}}", fields.join(",\n")).as_bytes());
    }
}

#[test]
fn deep_nesting() {
    for text in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(50_000)),
        format!("{} = 1", ["a"; 50_000].join(".")),
        format!("[{}]", ["a"; 50_000].join(".")),
        format!("a = {}1{}", format!("{{{} =", ["a"; 78].join(".")).repeat(78), "}".repeat(78)),
        "[[rules]]\n".repeat(20_000),
        "model = 1\n".repeat(20_000),
    ] {
        read(text.as_bytes());
    }
}
