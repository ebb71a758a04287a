//! The channels we are in, and who else is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Actions, Isupport, MAX_CHANNELS, MAX_REASON, Session, clean, name, words};
use crate::client::event::{Event, Member, Rank};
use crate::message::Message;
use crate::names::{self, CaseMapping};
use crate::{Error, Result};

/// The most members that are remembered over all channels, and the longest nick
/// of one, in bytes. Who is beyond that has no rank.
const MAX_MEMBERS: usize = 50_000;
const MAX_NICK: usize = 128;

/// How much of a JOIN's line the channels may take, in bytes.
const JOIN_LEN: usize = 400;

/// How long after a refused JOIN it is tried again for the first time, and at most: what
/// keeps us out is lifted by people, if at all.
const KNOCK_FIRST: Duration = Duration::from_secs(60);
const KNOCK_MAX: Duration = Duration::from_secs(60 * 60);

/// A channel that does not let us in.
#[derive(Debug)]
pub(super) struct Shut {
    /// Its folded name.
    key: String,
    wait: Duration,
    /// When it is tried again.
    pub again: Instant,
}

/// The channels we are in, by their folded names.
#[derive(Debug, Default)]
pub(super) struct Channels(BTreeMap<String, Channel>);

#[derive(Debug, Default)]
struct Channel {
    name: String,
    /// By folded nick.
    members: BTreeMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    nick: String,
    /// Letters of the modes that give a rank.
    modes: String,
    account: Option<String>,
}

impl Channels {
    fn add(&mut self, channel: &str, nick: &str, case: CaseMapping) -> Option<&mut Known> {
        let count: usize = self.0.values().map(|channel| channel.members.len()).sum();
        let members = &mut self.0.get_mut(&case.fold(channel))?.members;
        let key = case.fold(nick);
        let known = members.contains_key(&key);
        if !known && (count >= MAX_MEMBERS || nick.is_empty() || nick.len() > MAX_NICK) {
            return None;
        }
        Some(members.entry(key).or_insert_with(|| Known { nick: nick.into(), ..Known::default() }))
    }

    fn known(&self, channel: &str, nick: &str, case: CaseMapping) -> Option<&Known> {
        self.0.get(&case.fold(channel))?.members.get(&case.fold(nick))
    }

    fn remove(&mut self, channel: &str, nick: &str, case: CaseMapping) {
        if let Some(channel) = self.0.get_mut(&case.fold(channel)) {
            channel.members.remove(&case.fold(nick));
        }
    }

    /// Somebody has another nick.
    pub fn rename(&mut self, from: &str, to: &str, case: CaseMapping) {
        for channel in self.0.values_mut() {
            if let Some(known) = channel.members.remove(&case.fold(from)) {
                channel.members.insert(case.fold(to), Known { nick: to.to_owned(), ..known });
            }
        }
    }

    /// Who is in a channel; `None` if we are not.
    pub fn members(&self, channel: &str, isupport: &Isupport) -> Option<Vec<Member>> {
        let channel = self.0.get(&isupport.case.fold(channel))?;
        let member =
            |known: &Known| Member { nick: known.nick.clone(), rank: isupport.rank(&known.modes) };
        Some(channel.members.values().map(member).collect())
    }
}

impl Session {
    /// Puts a channel on the list of those to be in.
    pub(super) fn want(&mut self, channel: &str) {
        let case = self.link.isupport.case;
        if self.wanted.len() < MAX_CHANNELS && !self.wanted.iter().any(|w| case.same(w, channel)) {
            self.wanted.push(channel.to_owned());
        }
    }

    fn unwant(&mut self, channel: &str) {
        let case = self.link.isupport.case;
        self.forget_shut(channel);
        self.wanted.retain(|wanted| !case.same(wanted, channel));
    }

    fn forget_shut(&mut self, channel: &str) {
        let key = self.link.isupport.case.fold(channel);
        self.shut.retain(|shut| shut.key != key);
    }

    /// A channel does not let us in (`client channel :words`): told once, and tried again
    /// ever more rarely for as long as we want to be there.
    pub(super) fn on_shut(
        &mut self,
        numeric: u16,
        message: &Message,
        now: Instant,
        out: &mut Actions,
    ) {
        let case = self.link.isupport.case;
        let channel = message.param(1);
        if !self.is_ready() || !self.wanted.iter().any(|wanted| case.same(wanted, channel)) {
            return self.on_refused(numeric, message, out);
        }
        let key = case.fold(channel);
        match self.shut.iter_mut().find(|shut| shut.key == key) {
            Some(shut) => {
                shut.wait = (shut.wait * 2).min(KNOCK_MAX);
                shut.again = now + shut.wait;
            }
            None => {
                self.shut.push(Shut { key, wait: KNOCK_FIRST, again: now + KNOCK_FIRST });
                self.on_refused(numeric, message, out);
            }
        }
    }

    /// Tries the channels whose time it is.
    pub(super) fn knock(&mut self, now: Instant, out: &mut Actions) {
        let case = self.link.isupport.case;
        for shut in self.shut.iter_mut().filter(|shut| now >= shut.again) {
            // Without an answer it is tried as rarely.
            shut.again = now + shut.wait;
            if let Some(channel) = self.wanted.iter().find(|w| case.fold(w) == shut.key) {
                out.send("JOIN", &[channel]);
            }
        }
    }

    /// Joins a channel, now and after each connecting.
    ///
    /// # Errors
    /// [`Error::Name`] if it is not valid here.
    pub fn join(&mut self, channel: &str) -> Result<Actions> {
        let isupport = &self.link.isupport;
        if !names::is_channel(channel, &isupport.channel_types, isupport.channel_len) {
            return Err(Error::name("channel", channel));
        }
        self.want(channel);
        // Who asks again is told again.
        self.forget_shut(channel);
        let mut out = Actions::default();
        if self.is_ready() {
            out.send("JOIN", &[channel]);
        }
        Ok(out)
    }

    /// Leaves a channel for good.
    ///
    /// # Errors
    /// [`Error::Name`] if it is not valid here.
    pub fn part(&mut self, channel: &str, reason: &str) -> Result<Actions> {
        let isupport = &self.link.isupport;
        if !names::is_channel(channel, &isupport.channel_types, isupport.channel_len) {
            return Err(Error::name("channel", channel));
        }
        self.unwant(channel);
        let mut out = Actions::default();
        if self.is_ready() {
            let reason = words(reason);
            match crate::text::split(&reason, MAX_REASON).first() {
                Some(reason) => out.send("PART", &[channel, reason]),
                None => out.send("PART", &[channel]),
            }
        }
        Ok(out)
    }

    /// Joins all wanted channels in few lines.
    pub(super) fn join_wanted(&self, out: &mut Actions) {
        let mut list = String::new();
        for channel in &self.wanted {
            if !list.is_empty() && list.len() + channel.len() > JOIN_LEN {
                out.send("JOIN", &[&std::mem::take(&mut list)]);
            }
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(channel);
        }
        if !list.is_empty() {
            out.send("JOIN", &[&list]);
        }
    }

    /// `:nick!user@host JOIN channel [account :realname]`.
    pub(super) fn on_join(&mut self, message: &Message, out: &mut Actions) {
        let (Some(from), channel) = (message.source.clone(), message.param(0)) else { return };
        let isupport = &self.link.isupport;
        if !names::is_channel(channel, &isupport.channel_types, isupport.channel_len) {
            return;
        }
        let case = isupport.case;
        let is_self = self.link.is_me(&from.nick);
        let account = match message.params.len() {
            3.. if self.link.caps.has("extended-join") => account(message.param(1)),
            _ => self.account_tag(message),
        };
        if is_self {
            let count = self.link.channels.0.len();
            let key = case.fold(channel);
            if count < MAX_CHANNELS || self.link.channels.0.contains_key(&key) {
                let new = Channel { name: channel.to_owned(), members: BTreeMap::new() };
                self.link.channels.0.insert(key, new);
            }
            self.want(channel);
            self.forget_shut(channel);
            if self.config.history > 0 && self.link.caps.has_history() {
                let count = self.config.history.to_string();
                out.send("CHATHISTORY", &["LATEST", channel, "*", &count]);
            }
        }
        if let Some(known) = self.link.channels.add(channel, &from.nick, case) {
            known.account.clone_from(&account);
        }
        out.emit(Event::Joined {
            channel: channel.to_owned(),
            from: clean(from),
            account,
            is_self,
        });
    }

    /// `:nick!user@host PART channel [:reason]`.
    pub(super) fn on_part(&mut self, message: &Message, out: &mut Actions) {
        let (nick, channel) = (message.nick(), message.param(0));
        let reason = words(message.params.get(1).map_or("", String::as_str));
        let is_self = self.link.is_me(nick);
        if self.left(channel, nick, is_self) {
            let (channel, nick) = (name(channel), name(nick));
            out.emit(Event::Parted { channel, nick, reason, is_self });
        }
    }

    /// `:by KICK channel nick [:reason]`.
    pub(super) fn on_kick(&mut self, message: &Message, out: &mut Actions) {
        let (channel, nick) = (message.param(0), message.param(1));
        let reason = words(message.params.get(2).map_or("", String::as_str));
        let is_self = self.link.is_me(nick);
        if self.left(channel, nick, is_self) {
            let (channel, nick) = (name(channel), name(nick));
            let by = clean(message.source.clone().unwrap_or_default());
            out.emit(Event::Kicked { channel, nick, by, reason, is_self });
        }
    }

    /// Forgets who left, and the channel if it is us; says whether we were in it.
    fn left(&mut self, channel: &str, nick: &str, is_self: bool) -> bool {
        let case = self.link.isupport.case;
        if !self.link.channels.0.contains_key(&case.fold(channel)) {
            return false;
        }
        if is_self {
            self.link.channels.0.remove(&case.fold(channel));
            self.unwant(channel);
        } else {
            self.link.channels.remove(channel, nick, case);
        }
        true
    }

    /// `:nick!user@host QUIT [:reason]`.
    pub(super) fn on_quit(&mut self, message: &Message, out: &mut Actions) {
        let nick = message.nick();
        if nick.is_empty() || self.link.is_me(nick) {
            return;
        }
        let key = self.link.isupport.case.fold(nick);
        for channel in self.link.channels.0.values_mut() {
            channel.members.remove(&key);
        }
        out.emit(Event::Quit { nick: name(nick), reason: words(message.param(0)) });
        self.on_nick_free(nick, out);
    }

    /// `:by MODE channel +modes parameters`.
    pub(super) fn on_mode(&mut self, message: &Message, out: &mut Actions) {
        let channel = message.param(0);
        let isupport = &self.link.isupport;
        if !isupport.is_channel(channel) {
            return;
        }
        let [lists, always, when_set, _] = &isupport.channel_modes;
        let mut params = message.params.iter().skip(2);
        let (mut on, mut changed) = (true, false);
        for mode in message.param(1).chars() {
            match mode {
                '+' => on = true,
                '-' => on = false,
                m if isupport.prefixes.iter().any(|(prefix, _)| *prefix == m) => {
                    let Some(nick) = params.next() else { break };
                    if let Some(known) = self
                        .link
                        .channels
                        .0
                        .get_mut(&isupport.case.fold(channel))
                        .and_then(|channel| channel.members.get_mut(&isupport.case.fold(nick)))
                    {
                        known.modes.retain(|known| known != m);
                        if on {
                            known.modes.push(m);
                        }
                        changed = true;
                    }
                }
                m if lists.contains(m) || always.contains(m) || (on && when_set.contains(m)) => {
                    params.next();
                }
                _ => {}
            }
        }
        if changed {
            self.emit_members(channel, out);
        }
    }

    /// `353 client symbol channel :[signs]nick …`.
    pub(super) fn on_names(&mut self, message: &Message) {
        let channel = message.param(2);
        for entry in message.trailing().split(' ') {
            let signs = &self.link.isupport.prefixes;
            let mode_of = |sign| signs.iter().find(|(_, s)| *s == sign).map(|(mode, _)| *mode);
            let modes: String = entry.chars().map_while(mode_of).collect();
            let nick = entry.trim_start_matches(|c| mode_of(c).is_some());
            // With `userhost-in-names`, which a bouncer may have turned on.
            let nick = nick.split('!').next().unwrap_or(nick);
            let case = self.link.isupport.case;
            if let Some(known) = self.link.channels.add(channel, nick, case) {
                known.modes = modes;
            }
        }
    }

    /// `366 client channel :End of NAMES list`.
    pub(super) fn on_names_end(&self, message: &Message, out: &mut Actions) {
        self.emit_members(message.param(1), out);
    }

    fn emit_members(&self, channel: &str, out: &mut Actions) {
        let known = self.link.channels.0.get(&self.link.isupport.case.fold(channel));
        if let (Some(members), Some(known)) = (self.members(channel), known) {
            out.emit(Event::Members { channel: known.name.clone(), members });
        }
    }

    /// `:by INVITE nick channel`.
    pub(super) fn on_invite(&self, message: &Message, out: &mut Actions) {
        let (nick, channel) = (message.param(0), message.param(1));
        let isupport = &self.link.isupport;
        if let Some(by) = message.source.clone()
            && self.link.is_me(nick)
            && names::is_channel(channel, &isupport.channel_types, isupport.channel_len)
        {
            let account = self.account_of(message);
            out.emit(Event::Invited { channel: channel.to_owned(), by: clean(by), account });
        }
    }

    /// `:nick!user@host ACCOUNT account`.
    pub(super) fn on_account(&mut self, message: &Message) {
        let key = self.link.isupport.case.fold(message.nick());
        for channel in self.link.channels.0.values_mut() {
            if let Some(known) = channel.members.get_mut(&key) {
                known.account = account(message.param(0));
            }
        }
    }

    /// The rank of somebody in a channel.
    pub(super) fn rank_of(&self, channel: &str, nick: &str) -> Rank {
        let isupport = &self.link.isupport;
        let known = self.link.channels.known(channel, nick, isupport.case);
        known.map_or(Rank::Member, |known| isupport.rank(&known.modes))
    }

    /// The account behind a message: by its tag, or by what was told when its
    /// sender joined a channel that we share. Without the server's support it is
    /// nobody's.
    pub(super) fn account_of(&self, message: &Message) -> Option<String> {
        let caps = &self.link.caps;
        if caps.has("account-tag") {
            return self.account_tag(message);
        }
        if !caps.has("account-notify") || !caps.has("extended-join") {
            return None;
        }
        let key = self.link.isupport.case.fold(message.nick());
        let mut channels = self.link.channels.0.values();
        channels.find_map(|channel| channel.members.get(&key)?.account.clone())
    }

    fn account_tag(&self, message: &Message) -> Option<String> {
        let tag = message.tag("account").filter(|_| self.link.caps.has("account-tag"));
        tag.and_then(account)
    }
}

/// An account as the server names it; `*` is none.
fn account(account: &str) -> Option<String> {
    Some(name(account)).filter(|name| !name.is_empty() && name != "*")
}
