//! `fireclaw net`: what works on this host, shown with VMs.

use super::{Who, on_a_host};
use crate::harness::{Home, alone, finish, timeout};

#[test]
fn the_check_has_machines_try_what_they_reach() {
    let _alone = alone();
    let home = Home::new();
    let done = finish(home.fireclaw(["net", "check", "--json"]), Vec::new(), timeout()).exits(0);
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout).unwrap();
    for policy in ["local", "allow", "full"] {
        let check = checks.iter().find(|check| check["name"] == policy).unwrap();
        assert_eq!(check["verdict"], "ok", "{check}");
    }
    let done = finish(home.fireclaw(["net", "ls", "--json"]), Vec::new(), timeout()).exits(0);
    assert!(!String::from_utf8_lossy(&done.stdout).contains(home.path().to_str().unwrap()));
    home.is_clean();
}

#[test]
fn what_one_policy_lacks_is_no_matter_to_the_others() {
    let test = "network::check::what_one_policy_lacks_is_no_matter_to_the_others";
    on_a_host(test, |host| {
        fireclaw_netlab::run("mount", &["--bind", "/dev/null", "/usr/bin/slirp4netns"]);
        let done = host.command(Who::User, &["net", "check", "--json"]).exits(0);
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout).unwrap();
        let verdict = |name| {
            let check = checks.iter().find(|check| check["name"] == name);
            check.map(|check| check["verdict"].as_str().unwrap())
        };
        assert_eq!(verdict("slirp4netns"), Some("warn"));
        assert_eq!(
            [verdict("local"), verdict("allow"), verdict("full")],
            [Some("ok"), Some("ok"), None]
        );
    });
}
