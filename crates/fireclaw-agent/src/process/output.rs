//! What a command wrote: the beginning and the end of it.

use std::collections::VecDeque;

use crate::cut;

/// How much is kept of the beginning, in bytes: what went wrong first.
const HEAD: usize = 8 * 1024;

/// How much is kept of the end, in bytes: how it came out.
const TAIL: usize = 8 * 1024;

/// Bytes as they come, with a bound on what is kept.
#[derive(Debug, Default)]
pub struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    missing: usize,
}

impl Output {
    /// Takes more of it.
    pub fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(head);
        let fits = &rest[rest.len().saturating_sub(TAIL)..];
        let drop = (self.tail.len() + fits.len()).saturating_sub(TAIL);
        self.tail.drain(..drop);
        self.tail.extend(fits);
        self.missing += drop + rest.len() - fits.len();
    }

    /// As text for a model: what is no UTF-8 is replaced, and control characters but line
    /// ends and tabs are left out.
    pub fn into_text(self) -> String {
        let Self { mut head, mut tail, mut missing } = self;
        let mut middle = String::new();
        if missing > 0 {
            // No character is cut in two.
            let part = cut_character(&head);
            head.truncate(head.len() - part);
            let rest = tail.iter().take(3).take_while(|b| is_continuation(**b)).count();
            tail.drain(..rest);
            missing += part + rest;
            middle = cut::mark(missing);
        } else {
            // A character may be in both.
            head.extend(tail.drain(..));
        }
        let tail = Vec::from(tail);
        let text = [String::from_utf8_lossy(&head), middle.into(), String::from_utf8_lossy(&tail)]
            .concat();
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
    }
}

/// Whether a byte is within a character of UTF-8.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// How many bytes at the end are the beginning of a character.
fn cut_character(bytes: &[u8]) -> usize {
    let within = bytes.iter().rev().take(3).take_while(|b| is_continuation(**b)).count();
    let first = bytes.iter().rev().nth(within).copied().unwrap_or(0);
    let needed = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf7 => 4,
        _ => return 0,
    };
    if within + 1 < needed { within + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(pieces: &[&[u8]]) -> String {
        let mut output = Output::default();
        pieces.iter().for_each(|piece| output.push(piece));
        output.into_text()
    }

    #[test]
    fn what_fits_is_whole() {
        assert_eq!(text(&[b"a\r\n", b"\tb \xff\x1b[1m\xc3", b"\xa9"]), "a\n\tb \u{fffd}[1m\u{e9}");
        let most = "é".repeat((HEAD + TAIL) / 2);
        assert_eq!(text(&[most.as_bytes()]), most);
        assert_eq!(text(&[&most.as_bytes()[..HEAD + 1], &most.as_bytes()[HEAD + 1..]]), most);
    }

    #[test]
    fn of_more_the_beginning_and_the_end_are_kept() {
        let long = format!("first {} last", "é".repeat(1_000_000));
        let text = text(&[long.as_bytes()]);
        assert!(text.starts_with("first é") && text.ends_with("é last"));
        assert!(!text.contains('\u{fffd}'));
        let kept: usize = text.split("\n[").map(str::len).sum();
        assert!(kept < HEAD + TAIL + 60);
    }

    proptest! {
        #[test]
        fn bounded_however_it_comes(pieces in prop::collection::vec((any::<u8>(), 0_usize..9000), 0..12)) {
            let pieces: Vec<Vec<u8>> = pieces.into_iter().map(|(b, n)| vec![b; n]).collect();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let all = slices.concat();
            let mut output = Output::default();
            slices.iter().for_each(|piece| output.push(piece));
            prop_assert_eq!(output.head.len() + output.tail.len() + output.missing, all.len());
            prop_assert!(all.starts_with(&output.head));
            prop_assert!(all.ends_with(&Vec::from(output.tail.clone())));
            prop_assert!(output.head.len() <= HEAD && output.tail.len() <= TAIL);
            output.into_text();
        }
    }
}
