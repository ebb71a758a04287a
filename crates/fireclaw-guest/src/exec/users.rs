//! Users and groups of the image, read from its files without NSS.

use std::path::PathBuf;

use fireclaw_protocol::id::{Id, InvalidId};

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: Id,
    pub gid: Id,
    /// Supplementary groups. One that no process can have is left out.
    pub groups: Vec<Id>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// Finds a user by name or number in `passwd(5)` and `group(5)` texts, as `user` or
/// `user:group`.
///
/// Root and plain numbers need no entry: a minimal image has no such files. A group that is
/// named is the only one, as with Docker.
///
/// # Errors
/// In words: there is no such user or group, or one with ids that no process can have.
pub fn find(asked: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, of) = asked.split_once(':').unwrap_or((asked, ""));
    let user =
        find_user(if name.is_empty() && !of.is_empty() { "root" } else { name }, passwd, group)?;
    if of.is_empty() {
        return Ok(user);
    }
    Ok(User { gid: find_group(of, group)?, groups: Vec::new(), ..user })
}

fn find_group(asked: &str, group: &str) -> Result<Id, String> {
    let listed = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, _] = fields[..] else { return None };
        (name == asked).then(|| gid.parse::<Id>())
    });
    let found = listed.unwrap_or_else(|| asked.parse());
    found.map_err(|e| match fireclaw_protocol::id::is_number(asked) {
        true => format!("group {asked}: {e}"),
        false => format!("the image has no group {asked:?}"),
    })
}

fn find_user(asked: &str, passwd: &str, group: &str) -> Result<User, String> {
    fireclaw_protocol::id::check_user(asked).map_err(|e| format!("user {asked}: {e}"))?;
    let number: Option<Id> = asked.parse().ok();
    let listed = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let uid = uid.parse::<Id>();
        if name != asked && (number.is_none() || number != uid.ok()) {
            return None;
        }
        let user = || {
            Ok(User {
                name: name.into(),
                uid: uid?,
                gid: gid.parse()?,
                groups: groups_of(name, group),
                home: home.into(),
                shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
            })
        };
        Some(user().map_err(|e: InvalidId| format!("user {asked} of the image's /etc/passwd: {e}")))
    });
    if let Some(listed) = listed {
        return listed;
    }
    let uid = if asked == "root" { Some(Id::ROOT) } else { number };
    let uid = uid.ok_or_else(|| format!("the image has no user {asked:?}"))?;
    Ok(User {
        name: asked.into(),
        uid,
        // As with Docker, also for images whose files belong to group root.
        gid: Id::ROOT,
        groups: Vec::new(),
        home: if uid == Id::ROOT { "/root".into() } else { "/".into() },
        shell: "/bin/sh".into(),
    })
}

fn groups_of(name: &str, group: &str) -> Vec<Id> {
    group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else { return None };
            members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1001::/home/agent:/bin/sh\nbad:x:y:z\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:agent,other\nagent:x:1001:\n";

    #[test]
    fn a_group_that_is_named_is_the_only_one() {
        let passwd = "app:x:1000:1000::/app:/bin/sh\n";
        let group = "staff:x:50:app\nwheel:x:10:app\n";
        let ids = |asked: &str| {
            let user = find(asked, passwd, group)?;
            Ok::<_, String>((user.uid.get(), user.gid.get(), user.groups.len()))
        };
        assert_eq!(ids("app"), Ok((1000, 1000, 2)));
        assert_eq!(ids("app:wheel"), Ok((1000, 10, 0)));
        assert_eq!(ids("1000:4711"), Ok((1000, 4711, 0)));
        assert_eq!(ids("7:7"), Ok((7, 7, 0)));
        assert_eq!(ids("app:"), ids("app"));
        for bad in ["app:nobody", "app:4294967295", "nobody:50", "a:b:c"] {
            assert!(ids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn by_name_and_by_number() {
        let agent = find("agent", PASSWD, GROUP).unwrap();
        let groups: Vec<u32> = agent.groups.iter().map(|id| id.get()).collect();
        assert_eq!((agent.uid.get(), agent.gid.get(), &groups[..]), (1000, 1001, &[27][..]));
        assert_eq!(find("1000", PASSWD, GROUP), Ok(agent));
        assert!(find("nobody", PASSWD, GROUP).unwrap_err().contains("no user \"nobody\""));
    }

    #[test]
    fn an_id_that_would_leave_a_command_root_is_refused() {
        let passwd = "x:x:4294967295:4294967295::/:\ny:x:1000:4294967295::/:\n\
                      z:x:1001:1001::/:\nw:x:-1:0::/:\nv:x:+0:0::/:\n";
        let group = "g:x:4294967295:z\nh:x:7:z\n";
        for user in ["x", "y", "1000", "w", "v"] {
            let said = find(user, passwd, group).unwrap_err();
            assert!(said.contains(user) && said.contains("0 to 4294967294"), "{said}");
        }
        for number in ["4294967295", "4294967296"] {
            assert!(find(number, "", "").unwrap_err().contains("0 to 4294967294"));
        }
        let groups = find("z", passwd, group).unwrap().groups;
        assert_eq!(groups.iter().map(|id| id.get()).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        assert_eq!(find("root", "", "").unwrap().uid, Id::ROOT);
        assert_eq!(find("4711", "", "").unwrap().gid.get(), 0);
        find("agent", "", "").unwrap_err();
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(passwd in ".{0,200}", group in ".{0,200}") {
            let _ = find("agent", &passwd, &group);
        }
    }
}
