//! Ids of users and groups, as people and files write them.

use std::fmt;
use std::str::FromStr;

/// The id of a user or group that a process can have.
///
/// 2³²−1 is none: to the kernel it means "leave it as it is" (setresuid(2)), so a process
/// that is given it stays what it was, which is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

impl Id {
    /// Root, as a user or a group.
    pub const ROOT: Self = Self(0);

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What is written is no [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidId;

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ids of users and groups are numbers from 0 to {}", u32::MAX - 1)
    }
}

impl std::error::Error for InvalidId {}

impl FromStr for Id {
    type Err = InvalidId;

    /// Decimal digits and nothing else: `u32::from_str` would take a `+` as well.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.parse() {
            Ok(number) if number != u32::MAX && is_number(text) => Ok(Self(number)),
            _ => Err(InvalidId),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a user or group is named by a number: by digits alone.
pub fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refuses a user that is named by a number that is no id.
///
/// # Errors
/// [`InvalidId`].
pub fn check_user(name: &str) -> Result<(), InvalidId> {
    // The group after a colon as well.
    name.splitn(2, ':').try_for_each(|part| match is_number(part) {
        true => part.parse::<Id>().map(drop),
        false => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_id_that_means_no_change_is_none() {
        assert_eq!("0".parse(), Ok(Id::ROOT));
        assert_eq!("4294967294".parse::<Id>().map(Id::get), Ok(u32::MAX - 1));
        for wrong in
            ["4294967295", "4294967296", "18446744073709551616", "-1", "+1", "", " 1", "1 ", "0x1"]
        {
            assert_eq!(wrong.parse::<Id>(), Err(InvalidId), "{wrong:?}");
        }
    }

    #[test]
    fn a_user_by_name_is_not_judged_and_one_by_number_is() {
        for fine in ["agent", "0", "4711", "-1", ""] {
            check_user(fine).unwrap();
        }
        for wrong in ["4294967295", "00004294967295", "99999999999"] {
            assert_eq!(check_user(wrong), Err(InvalidId), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_the_number_that_is_written(number in any::<u64>()) {
            let id = number.to_string().parse::<Id>().ok().map(|id| u64::from(id.get()));
            prop_assert_eq!(id, (number < u64::from(u32::MAX)).then_some(number));
        }
    }
}
