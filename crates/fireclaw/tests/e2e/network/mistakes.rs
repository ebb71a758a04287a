//! What cannot be is refused with words that help, and leaves nothing.

use std::fs;

use fireclaw_netlab::run;

use super::{BOTH, Who, on_a_host};
use crate::harness::Home;

#[test]
fn a_wrong_policy_is_explained() {
    let home = Home::empty();
    let many = (0..10_001).map(|n| format!("n{n}.a")).collect::<Vec<_>>().join(",");
    let many = format!("allow:{many}");
    for (policy, words) in [
        ("interne", "there is no network policy \"interne\"; none, local, full, or allow:"),
        ("", "the network policy is empty"),
        ("allow:", "has no target"),
        ("allow:a..b", "is not a valid host name"),
        ("allow:a.example:0", "it must be a number from 1 to 65535"),
        ("allow:a.example:70000", "it must be a number from 1 to 65535"),
        ("allow:192.0.2.1", "is an address; only names can be allowed"),
        ("allow:*", "only `*.domain` means all names below"),
        ("allow:a.example b.example", "only deny:TARGET,… may follow"),
        (&many, "10000"),
    ] {
        home.run(["--network", policy, "true"]).exits(2).says(&["--network", words]);
    }
}

#[test]
fn a_host_that_cannot_is_explained() {
    on_a_host("network::mistakes::a_host_that_cannot_is_explained", |host| {
        let refused = |who: Who, words: &[&str]| {
            host.run(who, "local", &["true"], "").exits(125).says(words);
            host.is_clean(who);
        };
        let config = host.home.path().join("network.toml");
        let right = fs::read(&config).unwrap();
        for (wrong, words) in [
            ("subnet = \"10.0.0.0/8\"", "subnet"),
            ("ranges = [\"8.8.8.0/24\"]", "ranges"),
            ("sub net", "network.toml"),
            ("color = 1", "color"),
        ] {
            fs::write(&config, wrong).unwrap();
            host.run(Who::User, "local", &["true"], "").exits(125).says(&["network.toml", words]);
        }
        fs::write(&config, right).unwrap();

        run("ip", &["route", "add", "172.16.0.128/25", "dev", "up0"]);
        refused(
            Who::Root,
            &[
                "172.16.0.0/24",
                "172.16.0.128/25 on up0",
                "hint: set another one in network.toml, like subnet",
            ],
        );
        run("ip", &["route", "del", "172.16.0.128/25", "dev", "up0"]);

        let nft = ["/usr/sbin/nft", "/usr/bin/nft", "/sbin/nft"];
        for nft in nft.iter().filter(|nft| std::path::Path::new(nft).is_file()) {
            run("mount", &["--bind", "/dev/null", nft]);
        }
        for who in BOTH {
            let words = ["nft is not installed", "hint: apt-get install nftables"];
            host.run(who, "local", &["true"], "").exits(125).says(&words);
            host.run(who, "none", &["true"], "").exits(0);
        }
    });
}
