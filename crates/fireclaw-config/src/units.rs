//! Amounts as people write them.

use std::time::Duration;

/// MiB from text such as `512M`, `512 MiB`, `2G` or `512`.
pub fn mib(text: &str) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let factor = match bare.chars().last()? {
        'M' => 1,
        'G' => 1024,
        'T' => 1024 * 1024,
        '0'..='9' if bare.len() == upper.len() => 1,
        _ => return None,
    };
    digits(bare.strip_suffix(['M', 'G', 'T']).unwrap_or(bare).trim_end())?.checked_mul(factor)
}

/// A time from text such as `90`, `90s`, `10m`, `2h` or `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(seconds) = digits(text) {
        return Some(Duration::from_secs(seconds));
    }
    let (mut rest, mut total, mut largest) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(at);
        let unit = match tail.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return None,
        };
        // Each unit once, and the large ones first: "5m1h" is rather a slip.
        if unit >= largest {
            return None;
        }
        largest = unit;
        total = total.checked_add(digits(number)?.checked_mul(unit)?)?;
        rest = &tail[1..];
    }
    (largest < u64::MAX).then(|| Duration::from_secs(total))
}

/// MiB in words: the largest unit that it is a whole number of.
pub fn size(mib: u64) -> String {
    match mib {
        m if m % (1024 * 1024) == 0 && m > 0 => format!("{} TiB", m / (1024 * 1024)),
        m if m % 1024 == 0 && m > 0 => format!("{} GiB", m / 1024),
        m => format!("{m} MiB"),
    }
}

/// A time in words: the largest unit that it is a whole number of.
pub fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        s if s % 3600 == 0 && s > 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 && s > 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A number of ASCII digits only: `u64::from_str` would take a sign too.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512", 512),
            ("512M", 512),
            ("512 MiB", 512),
            ("1g", 1024),
            ("2GB", 2048),
            (" 1T ", 1024 * 1024),
        ] {
            assert_eq!(mib(text), Some(expected), "{text}");
        }
        for bad in ["", "M", "B", "512B", "-1", "+1", "1.5G", "1K", "12MM", "G2", "99999999999999T"]
        {
            assert_eq!(mib(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_in_words() {
        assert_eq!([96, 2048, 1024 * 1024, 0].map(size), ["96 MiB", "2 GiB", "1 TiB", "0 MiB"]);
    }

    #[test]
    fn times() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1d", 86400)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "m", "10x", "30m1h", "1h1h", "1.5h", "-5", "5 m", "99999999999999999d", "ä"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(words(Duration::from_secs(600)), "10 min");
        assert_eq!(words(Duration::from_secs(86400)), "24 h");
    }
}
