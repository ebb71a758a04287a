//! A check and how it is shown.

use comfy_table::{Table, presets};
use serde::Serialize;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, but something better is possible.
    Warn,
    /// Does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    /// How it went.
    pub verdict: Grade,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// A check that went well.
pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Grade::Ok, found: found.into(), hint: None }
}

/// A check that shows something better is possible.
pub fn warn(name: &'static str, found: impl Into<String>, hint: &str) -> Check {
    Check { name, verdict: Grade::Warn, found: found.into(), hint: Some(hint.into()) }
}

/// A check that failed.
pub fn fail(name: &'static str, found: impl Into<String>, hint: &str) -> Check {
    Check { name, verdict: Grade::Fail, found: found.into(), hint: Some(hint.into()) }
}

/// The checks as lines for a person.
pub fn table(checks: &[Check]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for check in checks {
        let grade = match check.verdict {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        table.add_row([grade, check.name, &check.found]);
        if let Some(hint) = &check.hint {
            table.add_row(["", "", &format!("hint: {hint}")]);
        }
    }
    table.to_string()
}
