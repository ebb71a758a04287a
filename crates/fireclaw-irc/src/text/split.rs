//! Cutting a line into pieces that fit.

use unicode_segmentation::UnicodeSegmentation;

/// The smallest limit for [`split`], in bytes: the longest character.
pub const MIN_LIMIT: usize = 4;

/// Cuts `line` into pieces of at most `limit` bytes: after a word if that does
/// not leave most of the piece empty, else between grapheme clusters (Unicode
/// UAX #29). Only a cluster that alone is too long is cut, between characters.
///
/// The spaces at a cut are dropped, and those at the end. An empty line has no
/// pieces. A limit below [`MIN_LIMIT`] counts as that.
pub fn split(line: &str, limit: usize) -> Vec<&str> {
    let limit = limit.max(MIN_LIMIT);
    let mut pieces = Vec::new();
    let mut rest = line.trim_end();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut(rest, limit));
        if !piece.trim().is_empty() {
            pieces.push(piece.trim_end());
        }
        rest = after.trim_start();
    }
    pieces
}

/// Where to cut, in bytes; never 0.
fn cut(rest: &str, limit: usize) -> usize {
    if rest.len() <= limit {
        return rest.len();
    }
    // A cluster may be as long as its writer likes. What is looked at is no more than what
    // decides: where a cluster ends within the limit, one character after it tells.
    let window = floor_char_boundary(rest, limit + MIN_LIMIT);
    let mut end = 0;
    let mut space = None;
    for (at, cluster) in rest[..window].grapheme_indices(true) {
        // A space may stand right behind the piece: it is dropped.
        if cluster.chars().all(char::is_whitespace) {
            space = Some(at);
        }
        if at + cluster.len() > limit {
            break;
        }
        end = at + cluster.len();
    }
    match space {
        Some(at) if at <= limit && at >= limit / 3 && at > 0 => at,
        _ if end > 0 => end,
        _ => floor_char_boundary(rest, limit),
    }
}

fn floor_char_boundary(text: &str, limit: usize) -> usize {
    (1..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn at_words_where_possible() {
        assert_eq!(split("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(split("the quick", 9), ["the quick"]);
        assert_eq!(split("exactly ten", 7), ["exactly", "ten"]);
        assert_eq!(split("a https://example.org/long", 10), ["a https://", "example.or", "g/long"]);
        assert_eq!(split("  indented stays ", 80), ["  indented stays"]);
        assert!(split("", 10).is_empty() && split("   ", 10).is_empty());
    }

    #[test]
    fn never_inside_a_cluster_that_fits() {
        let family = "👩‍👩‍👧"; // 18 bytes
        assert_eq!(split(&family.repeat(3), 40), [family.repeat(2), family.to_owned()]);
        assert_eq!(split("e\u{301}e\u{301}", 4), ["e\u{301}", "e\u{301}"]);
        assert_eq!(split("ééé", 5), ["éé", "é"]);
        let zalgo = format!("e{}", "\u{301}".repeat(10));
        assert!(split(&zalgo, 7).iter().all(|piece| piece.len() <= 7));
        assert_eq!(split(&zalgo, 7).concat(), zalgo);
    }

    fn without_spaces(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }

    /// Where it is cut if all of the rest is looked at.
    fn plain_cut(rest: &str, limit: usize) -> usize {
        let ends = rest.grapheme_indices(true).map(|(at, cluster)| at + cluster.len());
        ends.take_while(|end| *end <= limit)
            .last()
            .unwrap_or_else(|| floor_char_boundary(rest, limit))
    }

    proptest! {
        #[test]
        fn a_window_is_enough(line in "(\\PC|e\u{301}{1,9}|👩‍👩‍👧|🇩🇪|\u{915}\u{94d}){1,60}", limit in 4_usize..40) {
            let solid = without_spaces(&line);
            prop_assume!(solid.len() > limit);
            prop_assert_eq!(cut(&solid, limit), plain_cut(&solid, limit));
        }

        #[test]
        fn pieces_fit_and_lose_nothing(line in "(\\PC|[a-z ]|e\u{301}|👩‍👩‍👧){0,200}", limit in 0_usize..80) {
            let pieces = split(&line, limit);
            for piece in &pieces {
                prop_assert!(piece.len() <= limit.max(MIN_LIMIT) && !piece.trim().is_empty());
            }
            prop_assert_eq!(without_spaces(&pieces.concat()), without_spaces(&line));
        }

        #[test]
        fn words_that_fit_stay_whole(line in "([a-z]{1,9} ){0,40}") {
            let pieces = split(&line, 40).join(" ");
            prop_assert_eq!(pieces.split_whitespace().collect::<Vec<_>>(), line.split_whitespace().collect::<Vec<_>>());
        }
    }
}
