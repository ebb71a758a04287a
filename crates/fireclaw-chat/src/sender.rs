//! Who said or did something.

/// Who said or did something, as the network tells. Whether to believe it is a question of
/// whether to believe the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Sender {
    /// The nick, which anybody may take; for a server's own words its name.
    pub nick: String,
    /// The user's name on their host, or what the network shows instead; empty if it does not.
    pub user: String,
    /// Their host, or what the network shows instead; empty if it does not.
    pub host: String,
    /// The account that they have proved to own.
    pub account: Option<String>,
}
