//! What may be done, what has to be asked for, and what is not done.

use fireclaw_protocol::agent::{Rule, Verdict};
use regex_lite::{Regex, RegexBuilder};

use crate::cut;

/// How much memory the program of one pattern may take, in bytes.
const MAX_PROGRAM: usize = 1024 * 1024;

/// The rules of a configuration.
#[derive(Debug, Default)]
pub struct Rules(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    tool: Option<String>,
    /// Nothing fits anything.
    pattern: Option<Regex>,
    verdict: Verdict,
}

impl Rules {
    /// Compiles rules. What is wrong with them is told in words. A rule whose pattern is
    /// broken asks, for any arguments: what it was to keep from is not known.
    pub fn new(rules: &[Rule]) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        let compiled = rules.iter().map(|rule| {
            let pattern = rule.pattern.as_deref().map(|pattern| {
                RegexBuilder::new(pattern).size_limit(MAX_PROGRAM).build().map_err(|e| (pattern, e))
            });
            let tool = rule.tool.clone();
            match pattern.transpose() {
                Ok(pattern) => Compiled { tool, pattern, verdict: rule.verdict },
                Err((pattern, problem)) => {
                    let pattern = cut::line(pattern, 80);
                    notes.push(format!(
                        "the rule with the pattern {pattern:?} is broken and asks for everything: {problem}"
                    ));
                    Compiled { tool, pattern: None, verdict: Verdict::Ask }
                }
            }
        });
        let rules = Self(compiled.collect());
        (rules, notes)
    }

    /// What is to be done with a call: what the first rule says that fits; without one it
    /// is allowed. `what` is the command or the arguments as JSON.
    pub fn verdict(&self, tool: &str, what: &str) -> Verdict {
        let fits = |rule: &&Compiled| {
            rule.tool.as_deref().is_none_or(|name| name == tool)
                && rule.pattern.as_ref().is_none_or(|pattern| pattern.is_match(what))
        };
        self.0.iter().find(fits).map_or(Verdict::Allow, |rule| rule.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tool: Option<&str>, pattern: Option<&str>, verdict: Verdict) -> Rule {
        Rule { tool: tool.map(Into::into), pattern: pattern.map(Into::into), verdict }
    }

    #[test]
    fn the_first_that_fits_counts() {
        let (rules, notes) = Rules::new(&[
            rule(Some("run_command"), Some("^ls"), Verdict::Allow),
            rule(Some("run_command"), Some(r"\brm\b|ls"), Verdict::Ask),
            rule(None, Some("secret"), Verdict::Deny),
            rule(Some("fetch_url"), None, Verdict::Ask),
        ]);
        assert!(notes.is_empty());
        assert_eq!(rules.verdict("run_command", "ls; rm x"), Verdict::Allow);
        assert_eq!(rules.verdict("run_command", "sudo rm secret"), Verdict::Ask);
        assert_eq!(rules.verdict("run_command", "cat secret"), Verdict::Deny);
        assert_eq!(rules.verdict("run_command", "date"), Verdict::Allow);
        assert_eq!(rules.verdict("fetch_url", r#"{"url":"x"}"#), Verdict::Ask);
    }

    #[test]
    fn a_broken_pattern_asks() {
        for broken in ["(", "x{1000}{1000}{1000}"] {
            let (rules, notes) =
                Rules::new(&[rule(Some("run_command"), Some(broken), Verdict::Allow)]);
            assert_eq!(notes.len(), 1);
            assert_eq!(rules.verdict("run_command", "date"), Verdict::Ask);
            assert_eq!(rules.verdict("recall", "date"), Verdict::Allow);
        }
    }
}
