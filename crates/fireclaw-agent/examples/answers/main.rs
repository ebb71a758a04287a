//! Measures how well the built-in agent answers with a given model:
//! `cargo run -p fireclaw-agent --example answers`.
//!
//! It asks the questions of `questions.rs` as the overseer would, with the shipped template
//! `worker`, and compares the answers with what is true in the agent's sandbox. Without
//! `--model-server` it is the small model of `make demo`, which is fetched once.
//!
//! `docs/answers.md` has what was measured.

mod questions;
mod sandbox;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use fireclaw_llama::{LocalModel, LocalServer, Options, Stage, fetch_model, fetch_server};
use fireclaw_llm::{Broker, Limits, Server, ServerConfig, ServerKind, detect};
use fireclaw_say::{out, say};
use serde::Serialize;

use questions::{Check, Question, SESSIONS, Session};
use sandbox::Sandbox;
use talk::{Talk, Told};

/// As the overseer gives it to its own server.
const CONTEXT_TOKENS: u32 = 8192;

#[derive(Debug, Parser)]
#[command(name = "answers", about = "Measures how well the built-in agent answers")]
struct Args {
    /// Ask this server, instead of the small model of the demo
    #[arg(long)]
    model_server: Option<String>,

    /// The model's name on that server
    #[arg(long, requires = "model_server")]
    model: Option<String>,

    /// Threads that the small model computes with; all processors but one if absent
    #[arg(long)]
    threads: Option<usize>,

    /// Where questions, calls and answers go as JSON
    #[arg(long, default_value = "target/answers.json")]
    json: PathBuf,

    /// Only questions of sessions whose name contains one of these
    filters: Vec<String>,

    /// Be the agent program (the measuring program starts itself so)
    #[arg(long, hide = true)]
    program: bool,
}

/// What came of a question.
#[derive(Debug, Serialize)]
struct Outcome {
    session: &'static str,
    question: &'static str,
    told: Told,
    seconds: f64,
    /// The checks that failed; none if the answer is right.
    wrong: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.program {
        let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
        let paths = fireclaw_agent::Paths::default();
        runtime.block_on(fireclaw_agent::run(input, output, paths))?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcomes = runtime.block_on(measure(&args))?;
    out!("{}", table(&outcomes).trim_end())?;
    std::fs::write(&args.json, serde_json::to_vec_pretty(&outcomes)?)
        .with_context(|| args.json.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &Args) -> Result<Vec<Outcome>> {
    // Lives as long as it is asked.
    let mut _server = None;
    let (config, model) = match &args.model_server {
        Some(url) => {
            let kind = ServerKind::Auto;
            let config = ServerConfig { kind, url: url.clone(), key: None, ca_file: None };
            let kind = detect(&config).await?;
            let model = args.model.clone().context("--model says which of the server's")?;
            (ServerConfig { kind, ..config }, model)
        }
        None => {
            let server = local(args.threads).await?;
            let config = server.config();
            _server = Some(server);
            (config, LocalModel::QwenCoder.name().to_owned())
        }
    };
    let broker = Broker::new(Arc::new(Server::new(config)?), Limits::default());
    let mut outcomes = Vec::new();
    for session in SESSIONS {
        let is_wanted = |filter: &String| session.name.contains(filter.as_str());
        if args.filters.is_empty() || args.filters.iter().any(is_wanted) {
            hold(session, &broker, &model, &mut outcomes).await?;
        }
    }
    Ok(outcomes)
}

async fn local(threads: Option<usize>) -> Result<LocalServer> {
    let home =
        std::env::var_os("FIRECLAW_HOME").map_or_else(|| "target/answers".into(), PathBuf::from);
    let mut progress = |_: Stage<'_>| {};
    let options = Options {
        program: fetch_server(&home, &mut progress).await?,
        model: fetch_model(&home, LocalModel::QwenCoder, &mut progress).await?,
        names: vec![LocalModel::QwenCoder.name().into()],
        context_tokens: CONTEXT_TOKENS,
        threads,
    };
    Ok(LocalServer::start(&options).await?)
}

async fn hold(
    session: &Session,
    broker: &Broker,
    model: &str,
    outcomes: &mut Vec<Outcome>,
) -> Result<()> {
    let mut talk = Talk::start(broker, model).await?;
    for (number, question) in (1_u64..).zip(session.questions) {
        if session.fresh && number > 1 {
            talk = Talk::start(broker, model).await?;
        }
        if !question.before.is_empty() {
            let done = talk.sandbox.run(question.before).await?;
            anyhow::ensure!(done.status.success(), "{}: {done:?}", question.before);
        }
        let begun = Instant::now();
        let told = talk.ask(number, question).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let wrong = judge(&talk.sandbox, question, &told).await?;
        say!(
            "{} {seconds:5.1} s  {} -> {:?} {}",
            if wrong.is_empty() { "right" } else { "WRONG" },
            question.text,
            told.answer,
            told.calls.iter().map(|call| format!("[{call}]")).collect::<String>(),
        );
        let (session, question) = (session.name, question.text);
        outcomes.push(Outcome { session, question, told, seconds, wrong });
    }
    Ok(())
}

async fn judge(sandbox: &Sandbox, question: &Question, told: &Told) -> Result<Vec<String>> {
    let answer = told.answer.to_lowercase();
    let mut wrong = Vec::new();
    if answer.trim().is_empty() {
        wrong.push("nothing was said".to_owned());
    }
    for check in question.checks {
        let holds = match check {
            Check::Called => !told.calls.is_empty(),
            Check::CalledTool(name) => told.calls.iter().any(|call| call.starts_with(name)),
            Check::NotCalled => told.calls.is_empty(),
            Check::Says(texts) => texts.iter().any(|text| answer.contains(text)),
            Check::Omits(texts) => !texts.iter().any(|text| answer.contains(text)),
            Check::Holds(command) => sandbox.run(command).await?.status.success(),
            Check::True(command) => {
                let output = sandbox.run(command).await?.stdout;
                let truth = String::from_utf8_lossy(&output).to_lowercase();
                let said = words(&answer);
                let is_said = |line: &str| words(line).iter().all(|word| said.contains(word));
                truth.lines().filter(|line| !line.trim().is_empty()).any(is_said)
            }
        };
        if !holds {
            wrong.push(format!("{check:?}"));
        }
    }
    Ok(wrong)
}

/// Words and numbers; a unit that stands with its number is a word of its own.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split(|c: char| !(c.is_alphanumeric() || ".:,_/-".contains(c))) {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let digits = word.trim_end_matches(char::is_alphabetic);
        match word.starts_with(|c: char| c.is_ascii_digit()) && digits.len() < word.len() {
            true => words.extend([digits.trim_end_matches(['.', ',', '-']), &word[digits.len()..]]),
            false => words.push(word),
        }
    }
    words
}

fn table(outcomes: &[Outcome]) -> String {
    let row = |name: &str, outcomes: &[&Outcome]| {
        let right = outcomes.iter().filter(|o| o.wrong.is_empty()).count();
        let calls: usize = outcomes.iter().map(|o| o.told.calls.len()).sum();
        let seconds: f64 = outcomes.iter().map(|o| o.seconds).sum();
        let all = outcomes.len();
        format!("| {name} | {all} | {right} | {calls} | {:.1} |\n", seconds / all.max(1) as f64)
    };
    let mut table =
        "| session | questions | right | calls | s each |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for session in SESSIONS {
        let of: Vec<_> = outcomes.iter().filter(|o| o.session == session.name).collect();
        if !of.is_empty() {
            table.push_str(&row(session.name, &of));
        }
    }
    table + &row("all", &outcomes.iter().collect::<Vec<_>>())
}
