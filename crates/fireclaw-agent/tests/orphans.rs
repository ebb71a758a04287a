//! A process that hides whose it is. Alone in its program: while others run commands, such
//! a process is left to the last of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Host, config, home, processes_with};
use fireclaw_protocol::agent::Config;

#[tokio::test]
async fn whoever_hides_its_origin_is_killed_too() {
    let home = home();
    let mut host = Host::start(&home, Config { command_seconds: 1, ..config() }).await;
    host.ask(1, "go").await;
    let think = host.think().await;
    // Other parents, another session, another environment.
    let sleep = format!("sleep 3138{}", std::process::id());
    let script = format!("(env -i setsid sh -c 'setsid {sleep}1 & {sleep}2' &); {sleep}3");
    host.runs(&think, &script).await;
    let think = host.think().await;
    let told = "<data>\n(no output)\nkilled, unfinished, after 1 seconds\n</data>";
    assert_eq!(think.last().content, told);
    assert!(processes_with(&sleep).is_empty());
    host.says(&think, "ok").await;
    assert_eq!(host.said(1).await, "ok");
    host.end().await;
}
