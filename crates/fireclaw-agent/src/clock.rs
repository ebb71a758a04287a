//! The date and the time, in UTC: a VM knows no other zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The latest time that is written, the end of the year 9999: a clock that is wrong beyond
/// it is no reason to fail.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// As in `2026-07-04`.
pub fn date(seconds: u64) -> String {
    full(seconds)[..10].to_owned()
}

/// As in `Saturday 2026-07-04`.
pub fn day(seconds: u64) -> String {
    let day = usize::try_from(seconds / 86_400 % 7).unwrap_or(0);
    format!("{} {}", WEEKDAYS[day], date(seconds))
}

/// As in `Saturday 2026-07-04 12:30 UTC`.
pub fn words(seconds: u64) -> String {
    format!("{} {} UTC", day(seconds), &full(seconds)[11..16])
}

fn full(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples() {
        assert_eq!(words(0), "Thursday 1970-01-01 00:00 UTC");
        assert_eq!(words(1_783_168_200), "Saturday 2026-07-04 12:30 UTC");
        assert_eq!(day(1_783_168_200), "Saturday 2026-07-04");
        assert_eq!(date(u64::MAX), "9999-12-31");
    }
}
