//! A gateway as a program of its own, for tests and benchmarks; `fireclaw` has it as a
//! hidden sub-command.

fn main() -> std::process::ExitCode {
    fireclaw_net::gateway_main()
}
