//! Who may give commands.

use crate::{Case, Mask, Sender};

/// Who may give commands. Whoever fits one of these may.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// Everybody who is in the control channel: for a private server.
    pub everybody: bool,
    /// Operators of the control channel.
    pub operators: bool,
    /// Accounts, as the network tells them.
    pub accounts: Vec<String>,
    /// Masks.
    pub masks: Vec<Mask>,
}

impl Owners {
    /// Whether somebody may give commands: who they are, and whether they may moderate the
    /// control channel.
    pub fn may(&self, who: &Sender, is_operator: bool, case: Case) -> bool {
        let has_account = |account: &String| self.accounts.iter().any(|a| case.same(a, account));
        self.everybody
            || (self.operators && is_operator)
            || who.account.as_ref().is_some_and(has_account)
            || self.masks.iter().any(|mask| mask.matches(who, case))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_right_is_enough_and_none_is_not() {
        let ann = Sender { account: Some("Ann".into()), ..Sender::default() };
        let eve = Sender { nick: "Ann".into(), ..Sender::default() };
        let owners = Owners { accounts: vec!["ann".into()], ..Owners::default() };
        assert!(owners.may(&ann, false, Case::ASCII));
        assert!(!owners.may(&eve, true, Case::ASCII));
        let owners = Owners { operators: true, ..Owners::default() };
        assert!(owners.may(&eve, true, Case::ASCII) && !owners.may(&ann, false, Case::ASCII));
        let masks = vec![Mask::parse("a*!*@*").unwrap()];
        let owners = Owners { masks, ..Owners::default() };
        assert!(owners.may(&eve, false, Case::ASCII) && !owners.may(&ann, false, Case::ASCII));
        let owners = Owners { everybody: true, ..Owners::default() };
        assert!(owners.may(&eve, false, Case::ASCII));
    }
}
