//! Five fields of cron, and when they are next due.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The longest schedule, in bytes: 60 minutes one by one fit.
const MAX: usize = 400;

/// The fields, in order: name, range and the words that stand for its numbers.
const FIELDS: [(&str, &str, &[&str]); 5] = [
    ("minute", "0 to 59", &[]),
    ("hour", "0 to 23", &[]),
    ("day of the month", "1 to 31", &[]),
    ("month", "1 to 12 or JAN to DEC", &MONTHS),
    ("day of the week", "0 to 7 (0 and 7 are Sunday) or SUN to SAT", &DAYS),
];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// No time after this is looked for: the start of the year 5000, in seconds since 1970.
const FAR: u64 = 95_617_584_000;

/// When something is due: the five fields of crontab(5), in the host's local time.
///
/// Fields are `*`, numbers, names of months and days, ranges, lists and steps. If both days
/// are given, either is enough. [`Schedule::next_after`] says what becomes of hours that a
/// clock leaves out or repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// Why something is not a [`Schedule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSchedule {
    /// What is wrong; names the field if it is one.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

impl InvalidSchedule {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl Schedule {
    /// Reads five fields with blanks between them.
    ///
    /// # Errors
    /// [`InvalidSchedule`] with the first field that is wrong, and for a day that no
    /// calendar has.
    pub fn parse(text: &str) -> Result<Self, InvalidSchedule> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if text.len() > MAX {
            return Err(InvalidSchedule::new(format!("has more than {MAX} bytes"), ORDER));
        }
        if let [name] = fields[..]
            && name.starts_with('@')
        {
            return Err(InvalidSchedule::new(
                "must have five fields; names are not known",
                named(name),
            ));
        }
        if fields.len() != FIELDS.len() {
            let message = format!("must have five fields, not {}", fields.len());
            return Err(InvalidSchedule::new(message, ORDER));
        }
        for (at, field) in fields.iter().enumerate() {
            check(at, field)?;
        }
        let text = fields.join(" ");
        let cron =
            cron(&text).ok_or_else(|| InvalidSchedule::new("is not a valid schedule", ORDER))?;
        let schedule = Self { text, cron };
        // From a day before a leap year, so that 29 February is found at once.
        if schedule.next_in(&chrono::Utc, 1_700_000_000).is_none() {
            let hint = "no month that it names has that day";
            return Err(InvalidSchedule::new("is never due", hint));
        }
        Ok(schedule)
    }

    /// When it is next due, strictly after `time`, in the host's local time zone (`TZ`, else
    /// `/etc/localtime`) and to the second. Absent if that would be after the year 4999, and
    /// for a `time` before 1970.
    ///
    /// When the clock goes forward over a time that minute and hour name by number, it is
    /// due right after; with `*` or a step in either, the times in between are left out.
    /// When it goes back, the former is due once, the latter each time.
    pub fn next_after(&self, time: SystemTime) -> Option<SystemTime> {
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        UNIX_EPOCH.checked_add(Duration::from_secs(self.next_in(&Local, seconds)?))
    }

    /// The five fields.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The next time in a zone; both in seconds since 1970.
    fn next_in<Tz: TimeZone>(&self, zone: &Tz, seconds: u64) -> Option<u64> {
        if seconds >= FAR {
            return None;
        }
        let from = DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?.with_timezone(zone);
        let next = self.cron.find_next_occurrence(&from, false).ok()?.timestamp();
        u64::try_from(next).ok().filter(|next| *next > seconds)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

const ORDER: &str = "minute, hour, day of the month, month, day of the week: \"0 9 * * MON-FRI\"";

fn named(name: &str) -> String {
    let fields = match name {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        _ => return ORDER.into(),
    };
    format!("write \"{fields}\"")
}

fn cron(text: &str) -> Option<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).ok()
}

/// Checks one field: its words, which the parser knows more of than crontab(5), and then its
/// numbers, by parsing it alone.
fn check(at: usize, field: &str) -> Result<(), InvalidSchedule> {
    let Some((name, range, words)) = FIELDS.get(at) else { return Ok(()) };
    let wrong = |hint: String| {
        let message = format!("has a wrong {name}: `{}`", fireclaw_config::quoted(field));
        InvalidSchedule::new(message, hint)
    };
    for token in field.split([',', '-', '/']) {
        let number = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
        if !number && token != "*" && !words.iter().any(|word| word.eq_ignore_ascii_case(token)) {
            let near = fireclaw_config::nearest(token, words.iter().copied());
            return Err(wrong(near.map_or_else(
                || format!("it is `*`, a number, a list, a range or a step; {range}"),
                |near| format!("did you mean `{near}`?"),
            )));
        }
    }
    let alone: Vec<&str> = (0..FIELDS.len()).map(|n| if n == at { field } else { "*" }).collect();
    match cron(&alone.join(" ")) {
        Some(_) => Ok(()),
        None => Err(wrong(format!("it goes from {range}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{FixedOffset, Utc};
    use proptest::prelude::*;

    fn next(text: &str, from: &str) -> String {
        let from = DateTime::parse_from_rfc3339(from).unwrap().timestamp();
        let schedule = Schedule::parse(text).unwrap();
        let next = schedule.next_in(&Utc, from.try_into().unwrap()).unwrap();
        DateTime::from_timestamp(next.try_into().unwrap(), 0).unwrap().to_rfc3339()[..16].to_owned()
    }

    #[test]
    fn when_it_is_due() {
        // A Wednesday.
        let now = "2025-01-15T10:30:00Z";
        for (text, expected) in [
            ("* * * * *", "2025-01-15T10:31"),
            ("30 10 * * *", "2025-01-16T10:30"),
            ("*/15 * * * *", "2025-01-15T10:45"),
            ("0 9 * * MON-FRI", "2025-01-16T09:00"),
            ("0 9 * * sun", "2025-01-19T09:00"),
            ("0 9 * * 7", "2025-01-19T09:00"),
            ("0 9 * * 0", "2025-01-19T09:00"),
            ("0 0 29 2 *", "2028-02-29T00:00"),
            ("0 0 1 jan,jul *", "2025-07-01T00:00"),
            // Either day is enough: crontab(5).
            ("0 0 1 * FRI", "2025-01-17T00:00"),
            ("  0\t0 1 1 * ", "2026-01-01T00:00"),
        ] {
            assert_eq!(next(text, now), expected, "{text}");
        }
        assert_eq!(next("31 10 * * *", "2025-01-15T10:30:59Z"), "2025-01-15T10:31");
    }

    #[test]
    fn the_zone_counts() {
        let zone = FixedOffset::east_opt(2 * 3600).unwrap();
        let next = Schedule::parse("0 9 * * *").unwrap().next_in(&zone, 0);
        assert_eq!(next, Some(7 * 3600));
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (text, part) in [
            ("60 * * * *", "wrong minute: `60`"),
            ("* 24 * * *", "wrong hour: `24`"),
            ("* * 0 * *", "wrong day of the month: `0`"),
            ("* * * 13 *", "wrong month: `13`"),
            ("* * * * 8", "wrong day of the week: `8`"),
            ("* * * * MOM", "wrong day of the week: `MOM`"),
            ("MON * * * *", "wrong minute: `MON`"),
            ("1MON * * * *", "wrong minute: `1MON`"),
            ("* * L * *", "wrong day of the month: `L`"),
            ("* * * * 5#2", "wrong day of the week: `5#2`"),
            ("*/0 * * * *", "wrong minute: `*/0`"),
            ("5-1 * * * *", "wrong minute: `5-1`"),
            ("1- * * * *", "wrong minute: `1-`"),
            (", * * * *", "wrong minute: `,`"),
            ("-1 * * * *", "wrong minute: `-1`"),
            ("* * * *", "five fields, not 4"),
            ("* * * * * *", "five fields, not 6"),
            ("", "five fields, not 0"),
            ("@daily", "must have five fields"),
            ("0 0 30 2 *", "never due"),
        ] {
            let error = Schedule::parse(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn times_at_the_edges() {
        let schedule = Schedule::parse("* * * * *").unwrap();
        assert_eq!(schedule.next_after(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(schedule.next_after(UNIX_EPOCH + Duration::from_secs(FAR)), None);
        assert_eq!(schedule.next_after(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), None);
        assert!(
            schedule.next_after(UNIX_EPOCH + Duration::from_secs(FAR - 2 * 24 * 3600)).is_some()
        );
    }

    /// Fields as people write them, nearly all of them valid.
    fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => (low..=high).prop_map(|n| n.to_string()),
            1 => (1_u32..20).prop_map(|n| format!("*/{n}")),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    proptest! {
        #[test]
        fn the_next_time_is_strictly_later(
            fields in (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)),
            // 1970 to 2260, and a part of a second.
            seconds in 0_u64..9_150_000_000,
            nanos in 0_u32..1_000_000_000,
        ) {
            let (minute, hour, day, month, weekday) = fields;
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            let next = Schedule::parse(&text).unwrap().next_after(time);
            prop_assert!(next.is_some_and(|next| next > time), "{text}");
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}|[-0-9*/,LW#?+@a-zA-Z ]{0,60}") {
            if let Ok(schedule) = Schedule::parse(&text) {
                let again = Schedule::parse(schedule.as_str());
                prop_assert_eq!(again.as_ref().map(Schedule::as_str), Ok(schedule.as_str()));
            }
        }
    }
}
