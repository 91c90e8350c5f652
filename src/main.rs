//! A thin shell: everything is in the library, so that tests and benches reach it.

fn main() -> std::process::ExitCode {
    lakebed::cli::main()
}
