//! The work per byte of foreign text stays the same, however long the text is.

use fireclaw_testkit::cost::assert_linear;

use super::{Formatting, fold, lines, scrub, split};

#[test]
fn work_per_byte_does_not_grow_with_the_text() {
    let budget = 400;
    assert_linear("split", &|text| drop(split(text, budget)));
    assert_linear("split small", &|text| drop(split(text, 4)));
    assert_linear("scrub", &|text| drop(scrub(text, Formatting::Remove)));
    assert_linear("scrub formatted", &|text| drop(scrub(text, Formatting::Allow)));
    assert_linear("fold", &|text| drop(fold(text, budget, 16, Formatting::Remove)));
    assert_linear("lines", &|text| drop(lines(text, budget, Formatting::Remove)));
}
