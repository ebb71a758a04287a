//! Users and groups of the image, read from its files without NSS.

use std::path::PathBuf;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// Finds a user by name or number in `passwd(5)` and `group(5)` texts.
///
/// Root and plain numbers need no entry: a minimal image has no such files.
pub fn find(asked: &str, passwd: &str, group: &str) -> Option<User> {
    let number: Option<u32> = asked.parse().ok();
    let listed = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (name == asked || number == Some(uid)).then(|| User {
            name: name.into(),
            uid,
            gid,
            groups: groups_of(name, group),
            home: home.into(),
            shell: if shell.is_empty() { "/bin/sh".into() } else { shell.into() },
        })
    });
    let unlisted = || {
        let uid = if asked == "root" { 0 } else { number? };
        let home = if uid == 0 { "/root" } else { "/" };
        Some(User {
            name: asked.into(),
            uid,
            gid: uid,
            groups: Vec::new(),
            home: home.into(),
            shell: "/bin/sh".into(),
        })
    };
    listed.or_else(unlisted)
}

fn groups_of(name: &str, group: &str) -> Vec<u32> {
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
    fn by_name_and_by_number() {
        let agent = find("agent", PASSWD, GROUP).unwrap();
        assert_eq!((agent.uid, agent.gid, &agent.groups[..]), (1000, 1001, &[27][..]));
        assert_eq!(find("1000", PASSWD, GROUP), Some(agent));
        assert_eq!(find("nobody", PASSWD, GROUP), None);
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        assert_eq!(find("root", "", "").unwrap().uid, 0);
        assert_eq!(find("4711", "", "").unwrap().gid, 4711);
        assert_eq!(find("agent", "", ""), None);
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(passwd in ".{0,200}", group in ".{0,200}") {
            let _ = find("agent", &passwd, &group);
        }
    }
}
