//! Extended headers of POSIX.1-2001 (pax): records of a length, a key and a value.

use std::collections::BTreeMap;

use super::Time;
use crate::problem::{Outcome, Problem, bad, shown};

/// The records of one header, or of all global ones so far.
///
/// Of the records whose key may come more than once, GNU's sparse maps of version 0.0, the
/// pairs are joined as version 0.1 writes them.
#[derive(Debug, Clone, Default)]
pub struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

/// What comes before the name of an extended attribute, by `star`, GNU tar, Go and others.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the records of `bytes`, which replace those of the same key.
    pub fn add(&mut self, mut bytes: &[u8]) -> Outcome<()> {
        while !bytes.is_empty() {
            let (record, rest) = split(bytes)
                .ok_or_else(|| Problem::Bad("an extended header is malformed".to_owned()))?;
            bytes = rest;
            let (key, value) = record;
            let key = match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let map = self.0.entry(b"GNU.sparse.map".to_vec()).or_default();
                    if !map.is_empty() {
                        map.push(b',');
                    }
                    map.extend(value);
                    continue;
                }
                key => key.to_vec(),
            };
            self.0.insert(key, value.to_vec());
        }
        Ok(())
    }

    /// Those of `self` where they are, else those of `global`.
    pub fn over(self, global: &Self) -> Self {
        if global.0.is_empty() {
            return self;
        }
        let mut all = global.clone();
        all.0.extend(self.0);
        all
    }

    /// The bytes that are held for them.
    pub fn held(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// A value; an empty one stands for none.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// A number that cannot be negative.
    pub fn number(&self, key: &str) -> Outcome<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match decimal(value) {
            Some(number) => Ok(Some(number)),
            None => bad(format!("an extended header has {key}={}", shown(value))),
        }
    }

    /// Seconds with a fraction, such as `-1.5`.
    pub fn time(&self, key: &str) -> Outcome<Option<Time>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match time(value) {
            Some(time) => Ok(Some(time)),
            None => bad(format!("an extended header has {key}={}", shown(value))),
        }
    }

    /// Extended attributes: name and value.
    pub fn xattrs(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.0.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(XATTR)?;
            Some((attribute_name(name), value.clone()))
        })
    }
}

/// A key with its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the first `length key=value\n` off.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| ((&record[..equals], &record[equals + 1..]), &bytes[length..]))
}

/// Digits only: no sign, no spaces.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"0");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = |n: usize| fraction.get(n).map_or(0, |digit| u32::from(digit - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, n| sum * 10 + digits(n));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// GNU tar writes `=` and `%` in names of attributes as `%3D` and `%25`.
fn attribute_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        (out, rest) = match rest {
            [b'%', b'3', b'D', tail @ ..] => ([&out[..], b"="].concat(), tail),
            [b'%', b'2', b'5', tail @ ..] => ([&out[..], b"%"].concat(), tail),
            _ => {
                out.push(*first);
                (out, tail)
            }
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = [b" ", key, b"=", value, b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        [length.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in
            [&b"x"[..], b"5 a=b\n", b"6 a=bb", b"6 =bb\n\n", b"99 a=b\n", b"-1 a=b\n", b"0 a"]
        {
            assert!(Records::default().add(bad).is_err(), "{}", shown(bad));
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let of = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(of("12"), Some((12, 0)));
        assert_eq!(of("12.5"), Some((12, 500_000_000)));
        assert_eq!(of("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(of("1.0000000019"), Some((1, 1)));
        for bad in ["", "-", ".5", "1.x", "99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            records in prop::collection::btree_map("[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 1..200), 0..10)
        ) {
            let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| record(k.as_bytes(), v)).collect();
            let mut read = Records::default();
            read.add(&bytes).unwrap();
            for (key, value) in &records {
                prop_assert_eq!(read.get(key), Some(&value[..]));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in "[0-9]{1,3} [a-z=\n]{0,40}") {
            let _ = Records::default().add(bytes.as_bytes());
        }
    }
}
