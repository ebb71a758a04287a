//! The work per byte of foreign text stays the same, however long the text is.
//!
//! Time is measured against the same function on a text of a quarter of the length, in the
//! same run, so that a busy machine does not matter much: quadratic work takes 16 times as
//! long, linear work 4 times.

use std::time::Duration;

use super::{Formatting, fold, lines, scrub, split};

/// How much longer four times the text may take: between 4, linear, and 16, quadratic.
const MOST: u32 = 10;

/// Texts that made something slow somewhere, at about this length.
fn hostile(len: usize) -> Vec<(&'static str, String)> {
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
    ]
}

/// The processor's time for it. Others who work on this machine are not counted, but for
/// what they throw out of its caches.
fn cost(work: &dyn Fn(&str), text: &str) -> Duration {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap()
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

#[test]
fn work_per_byte_does_not_grow_with_the_text() {
    const SHORT: usize = 16 * 1024;
    let budget = 400;
    type Named<'a> = (&'a str, &'a dyn Fn(&str));
    let functions: [Named<'_>; 6] = [
        ("split", &|text| drop(split(text, budget))),
        ("split small", &|text| drop(split(text, 4))),
        ("scrub", &|text| drop(scrub(text, Formatting::Remove))),
        ("scrub formatted", &|text| drop(scrub(text, Formatting::Allow))),
        ("fold", &|text| drop(fold(text, budget, 16, Formatting::Remove))),
        ("lines", &|text| drop(lines(text, budget, Formatting::Remove))),
    ];
    for (name, work) in functions {
        for ((kind, short), (_, long)) in hostile(SHORT).into_iter().zip(hostile(4 * SHORT)) {
            let (short, long) = costs(work, &short, &long);
            assert!(long < short * MOST, "{name} of {kind}: {short:?}, then {long:?}");
        }
    }
}
