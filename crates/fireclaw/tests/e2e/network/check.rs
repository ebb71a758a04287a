//! `fireclaw net`: what works on this host, shown with machines.

use crate::harness::{Home, alone, finish, patience};

#[test]
fn the_check_has_machines_try_what_they_reach() {
    let _alone = alone();
    let home = Home::new();
    let done = finish(home.fireclaw(["net", "check", "--json"]), Vec::new(), patience()).exits(0);
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout).unwrap();
    for policy in ["local", "allow", "full"] {
        let check = checks.iter().find(|check| check["name"] == policy).unwrap();
        assert_eq!(check["verdict"], "ok", "{check}");
    }
    let done = finish(home.fireclaw(["net", "ls", "--json"]), Vec::new(), patience()).exits(0);
    assert!(!String::from_utf8_lossy(&done.stdout).contains(home.path().to_str().unwrap()));
    home.is_clean();
}
