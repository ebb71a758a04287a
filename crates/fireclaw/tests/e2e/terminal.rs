//! A command with a terminal, driven as a person would: in tmux.

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Action, tcflow};

use crate::harness::{self, Home, timeout, wait_until};
use crate::overseer::Overseer;
use crate::tmux::Tmux;

#[test]
fn a_shell_has_keys_size_colours_and_its_status() {
    let home = Home::new();
    let tmux = Tmux::start(&home);
    let modes = tmux.says("stty -g");
    tmux.line("$fireclaw run -it --env PS1='guest> ' -- bash --norc; echo \"ended $?\"");
    tmux.prompts("guest>");
    tmux.line("tty; stty size; echo $TERM");
    tmux.shows("/dev/pts/0");
    tmux.shows("30 100");
    tmux.shows(tmux.run(&["show-options", "-gv", "default-terminal"]).trim_end());
    tmux.prompts("guest>");
    tmux.has_size_and_ctrl_c();
    tmux.line("echo \"after $?\"");
    tmux.shows("after 130");
    // Characters of two bytes go as one, and a secret is not shown.
    tmux.prompts("guest>");
    tmux.line("echo now; read -r word; echo \"[$word]\"");
    tmux.shows("now");
    tmux.run(&["send-keys", "-l", "größe"]);
    tmux.run(&["send-keys", "-H", "7f", "7f"]);
    tmux.key("Enter");
    tmux.shows("[grö]");
    tmux.prompts("guest>");
    tmux.line("stty -echo; echo 'in secret'; read -r secret; stty echo; echo \"has ${#secret}\"");
    tmux.shows("in secret");
    tmux.line("hush-hush");
    tmux.shows("has 9");
    assert!(!tmux.screen().contains("hush"), "{}", tmux.screen());

    // An interpreter that asks the terminal much, ended by Ctrl-D.
    tmux.prompts("guest>");
    tmux.line("python3 -q");
    tmux.prompts(">>>");
    tmux.line("6 * 7");
    tmux.shows("42");
    tmux.prompts(">>>");
    tmux.key("C-d");
    // A program that has the whole screen.
    tmux.prompts("guest>");
    tmux.line("top");
    wait_until("top", || tmux.screen().contains("PID USER"));
    tmux.key("q");
    tmux.prompts("guest>");
    tmux.line("exit 7");
    tmux.shows("ended 7");
    assert_eq!(tmux.says("stty -g"), modes);
    home.is_clean();
}

#[test]
fn the_terminal_is_ours_again_after_every_end() {
    let home = Home::new();
    let tmux = Tmux::start(&home);
    let modes = tmux.says("stty -g");
    // All that was written comes first.
    tmux.line("$fireclaw run -it seq 1 100000; echo \"ended $?\"");
    tmux.shows("100000");
    tmux.shows("ended 0");
    let screen = tmux.screen();
    let shown: Vec<u32> = screen.lines().filter_map(|line| line.trim_end().parse().ok()).collect();
    assert!(shown.len() > 100 && shown.windows(2).all(|two| two[0] + 1 == two[1]), "{screen}");
    assert_eq!(tmux.says("stty -g"), modes);
    tmux.line("$fireclaw run -it no-such-program x; echo \"ended $?\"");
    tmux.shows("ended 127");
    assert_eq!(tmux.says("stty -g"), modes);
    tmux.line("$fireclaw run -it -t 3 sleep 1000; echo \"ended $?\"");
    tmux.shows("ended 124");
    assert_eq!(tmux.says("stty -g"), modes);

    for (victim, signal, ended) in [("VMM", Signal::KILL, 125), ("run", Signal::TERM, 143)] {
        tmux.prompts("host>");
        tmux.line("clear; $fireclaw run -it -- sh -c 'echo it is up; cat'; echo \"ended $?\"");
        tmux.shows("it is up");
        let (run, vmm) = tmux.run_and_vmm();
        let victim = if victim == "run" { run } else { vmm };
        kill_process(Pid::from_raw(victim).unwrap(), signal).unwrap();
        tmux.shows(&format!("ended {ended}"));
        assert_eq!(tmux.says("stty -g"), modes);
    }
    home.is_clean();
}

#[test]
fn a_terminal_that_takes_nothing_keeps_nobody() {
    let home = Home::new();
    let tmux = Tmux::start(&home);
    tmux.line("$fireclaw run -it yes; echo \"ended $?\"");
    wait_until("output", || tmux.screen().lines().filter(|line| *line == "y").count() > 20);
    let (run, vmm) = tmux.run_and_vmm();
    let pane = std::fs::File::open(tmux.run(&["list-panes", "-F", "#{pane_tty}"]).trim()).unwrap();
    tcflow(&pane, Action::OOff).unwrap();
    kill_process(Pid::from_raw(run).unwrap(), Signal::TERM).unwrap();
    wait_until("the end", || !harness::is_alive(vmm) && !harness::is_alive(run));
    tcflow(&pane, Action::OOn).unwrap();
    tmux.until("the end", |lines| lines.iter().any(|line| line.ends_with("ended 143")));
    home.is_clean();
}

#[test]
fn it_is_stopped_continued_and_ended_in_the_background() {
    let home = Home::new();
    let tmux = Tmux::start(&home);
    let modes = tmux.says("stty -g");
    tmux.line("set -m; $fireclaw run -it -e PS1='guest> ' -- bash --norc; echo \"ended $?\"");
    tmux.prompts("guest>");
    let (run, vmm) = tmux.run_and_vmm();
    let kill = |signal| kill_process(Pid::from_raw(run).unwrap(), signal).unwrap();
    kill(Signal::TSTP);
    assert_eq!(tmux.says("stty -g"), modes);
    tmux.line("fg");
    // Every key is the command's again.
    wait_until("the guest", || {
        tmux.line("echo $0 is here");
        tmux.screen().lines().any(|line| line == "bash is here")
    });
    kill(Signal::TSTP);
    tmux.prompts("host>");
    tmux.line("bg");
    kill(Signal::TERM);
    wait_until("the end", || !harness::is_alive(vmm) && !harness::is_alive(run));
    tmux.key("Enter");
    assert_eq!(tmux.says("stty -g"), modes);
    home.is_clean();
}

#[test]
fn a_terminal_that_goes_away_ends_the_run() {
    let home = Home::new();
    let tmux = Tmux::start(&home);
    tmux.line("$fireclaw run -it yes");
    wait_until("output", || tmux.screen().lines().filter(|line| *line == "y").count() > 20);
    let (run, vmm) = tmux.run_and_vmm();
    drop(tmux);
    wait_until("the end", || !harness::is_alive(run) && !harness::is_alive(vmm));
    home.is_clean();
}

#[test]
fn an_agent_s_vm_has_terminals_too() {
    let _alone = harness::alone();
    let overseer = Overseer::start(&[]);
    overseer.fireclaw(&["agent", "start", "puppet"]).exits(0);
    overseer.ready("puppet");
    let tmux = Tmux::start(&overseer.home);
    let modes = tmux.says("stty -g");
    let exec = "$fireclaw agent exec -it -e PS1='guest> ' puppet bash --norc; echo \"ended $?\"";
    tmux.line(exec);
    tmux.prompts("guest>");
    // It is its user's terminal, not root's.
    tmux.line("id -un; echo \"[by name]\" > $(tty); stty size");
    tmux.shows("agent");
    tmux.shows("[by name]");
    tmux.shows("30 100");
    tmux.prompts("guest>");
    tmux.has_size_and_ctrl_c();
    tmux.line("exit 7");
    tmux.shows("ended 7");
    assert_eq!(tmux.says("stty -g"), modes);

    // The VM goes away under it.
    tmux.line(exec);
    tmux.prompts("guest>");
    overseer.fireclaw(&["agent", "stop", "puppet"]).exits(0);
    tmux.until("the end", |lines| lines.iter().any(|line| line.ends_with("ended 137")));
    assert_eq!(tmux.says("stty -g"), modes);
    overseer.end();
}

#[test]
fn where_there_is_no_terminal_it_is_said_and_input_is_forwarded() {
    let home = Home::new();
    home.run(["-it", "bash"]).exits(2).says(&["standard input is not a terminal", "--tty"]);
    let cat = harness::finish(home.fireclaw(["run", "-i", "cat"]), b"abc".into(), timeout());
    assert_eq!(cat.exits(0).stdout(), "abc");
    home.run(["-it", "-n", "bash"]).exits(2).says(&["cannot be used with"]);
}
