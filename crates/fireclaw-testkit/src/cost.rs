//! Whether the work per byte of foreign text stays the same, however long the text is.
//!
//! Time is measured against the same function on a text of a quarter of the length, in the
//! same run, so that a busy host does not matter much: quadratic work takes 16 times as
//! long, linear work 4 times.

use std::time::Duration;

/// How much longer four times the text may take: between 4, linear, and 16, quadratic.
const MOST: u32 = 10;

/// The length of the short text, in bytes.
const SHORT: usize = 16 * 1024;

/// Texts of about `len` bytes that made something slow somewhere.
pub fn hostile(len: usize) -> Vec<(&'static str, String)> {
    let times = |unit: &str| unit.repeat(len / unit.len());
    vec![
        ("one cluster", format!("e{}", times("\u{301}"))),
        ("joined", times("👩\u{200d}")),
        ("flags", times("🇩🇪")),
        ("virama", times("\u{915}\u{94d}")),
        ("prepend", times("\u{600}")),
        ("short and long", times("a e\u{301}\u{301}\u{301}\u{301}")),
        ("words", times("a ")),
        ("spaces", times(" ")),
        ("no spaces", times("x")),
        ("line breaks", times("\r\n")),
        ("lines", times("- x\n")),
        ("prose", times("x\n")),
        ("fences", times("```\n")),
        ("ticks", times("`")),
        ("osc", times("\x1b]")),
        ("csi", times("\x1b[1;")),
        ("escapes", times("\x1b  ")),
        ("csi in c1", times("\u{9b}1")),
        ("one osc", format!("\x1b]{}", times("x"))),
        ("colours", times("\x0301,02")),
        ("hex colours", times("\x04ffffff,")),
        ("marks of models", times("<think>")),
        ("ends of models", times("</think><|im_end|>")),
        ("half marks", times("<|channel|>fina")),
        ("brackets", times("[")),
        ("braces", times("{\"a\":")),
        ("quotes", times("\"\\")),
    ]
}

/// Fails unless `work` takes time in proportion to the length of [hostile texts](hostile).
///
/// # Panics
/// That is how a test fails.
#[track_caller]
#[allow(clippy::panic, reason = "it is an assertion")]
pub fn assert_linear(name: &str, work: &dyn Fn(&str)) {
    for ((kind, short), (_, long)) in hostile(SHORT).into_iter().zip(hostile(4 * SHORT)) {
        let (short, long) = costs(work, &short, &long);
        assert!(long < short * MOST, "{name} of {kind}: {short:?}, then {long:?}");
    }
}

/// The processor's time for it. Others who work on this host are not counted, but for
/// what they throw out of its caches.
fn cost(work: &dyn Fn(&str), text: &str) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    };
    let start = now();
    work(text);
    now() - start
}

/// How long the short and the long text take, each in its best run: as many runs as it takes
/// to look linear, which quadratic work never does.
fn costs(work: &dyn Fn(&str), short: &str, long: &str) -> (Duration, Duration) {
    const RUNS: usize = 30;
    // What takes no time at all is measured as such.
    const LEAST: Duration = Duration::from_micros(200);
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        best.0 = best.0.min(cost(work, short).max(LEAST));
        best.1 = best.1.min(cost(work, long).max(LEAST));
        if best.1 < best.0 * MOST {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_is_linear() {
        assert_linear("count", &|text| assert!(text.chars().all(|c| c != '\0')));
    }

    #[test]
    #[should_panic(expected = "rescan of one cluster")]
    fn a_rescan_for_every_kibibyte_is_not() {
        assert_linear("rescan", &|text| {
            let count = |from: usize| text.as_bytes()[from..].iter().filter(|b| **b == 0).count();
            assert_eq!((0..text.len()).step_by(1024).map(count).sum::<usize>(), 0);
        });
    }
}
