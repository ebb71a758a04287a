//! Whether a line in a channel is meant for somebody.

use crate::Case;

/// What is said to `nick` if the line starts by addressing it, as `nick: …`,
/// `nick, …` or `@nick …`, in any case and with full-width signs too; `None` if it does not.
///
/// The rest comes without the spaces around it, and may be empty.
pub fn addressed<'a>(line: &'a str, nick: &str, case: Case) -> Option<&'a str> {
    let line = line.trim_start();
    let (at, named) = match line.strip_prefix('@') {
        Some(named) => (true, named),
        None => (false, line),
    };
    let name = named.get(..nick.len())?;
    let rest = &named[nick.len()..];
    if nick.is_empty() || !case.same(name, nick) {
        return None;
    }
    match rest.chars().next() {
        // The last two are full-width, as keyboards for Chinese and Japanese write them.
        Some(mark @ (':' | ',' | '：' | '，')) => Some(rest[mark.len_utf8()..].trim()),
        None if at => Some(""),
        Some(c) if at && c.is_whitespace() => Some(rest.trim()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_worker(line: &str) -> Option<&str> {
        addressed(line, "worker", Case::ASCII)
    }

    #[test]
    fn addressed_at_the_start_only() {
        assert_eq!(to_worker("worker: what's your uptime?"), Some("what's your uptime?"));
        assert_eq!(to_worker("Worker, hi"), Some("hi"));
        assert_eq!(to_worker("  @WORKER hi "), Some("hi"));
        assert_eq!(to_worker("@worker: hi"), Some("hi"));
        assert_eq!(to_worker("worker:hi"), Some("hi"));
        assert_eq!(to_worker("worker:"), Some(""));
        assert_eq!(to_worker("@worker"), Some(""));
        assert_eq!(to_worker("worker：你好"), Some("你好"));
        assert_eq!(to_worker("@worker， hi"), Some("hi"));
        for other in [
            "worker",
            "worker hi",
            "worker2: hi",
            "co-worker: hi",
            "ask worker: hi",
            "@worker2 hi",
            "",
            "@",
            "work: hi",
            "@worker's hat",
            "\u{2019}worker: hi",
        ] {
            assert_eq!(to_worker(other), None, "{other:?}");
        }
    }

    #[test]
    fn by_the_networks_case() {
        let irc = Case::new(|c| if c == '[' { '{' } else { c.to_ascii_lowercase() });
        assert_eq!(addressed("a{: hi", "A[", irc), Some("hi"));
        assert_eq!(addressed("a{: hi", "A[", Case::ASCII), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in any::<String>(), nick in any::<String>()) {
            let _ = addressed(&line, &nick, Case::ASCII);
            let _ = to_worker(&line);
        }
    }
}
