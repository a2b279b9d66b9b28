//! Checks a history in a file of JSON lines: `check-history FILE`.

use kvservice_history::{Call, check};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: check-history FILE");
        return ExitCode::FAILURE;
    };
    match read(&path) {
        Ok(history) => verdict(&history),
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &str) -> Result<Vec<Call>, Box<dyn std::error::Error>> {
    let mut history = Vec::new();
    for (line, number) in BufReader::new(File::open(path)?).lines().zip(1..) {
        let call = Call::from_line(&line?).map_err(|error| format!("line {number}: {error}"))?;
        history.push(call);
    }
    Ok(history)
}

fn verdict(history: &[Call]) -> ExitCode {
    let began = Instant::now();
    match check(history) {
        Ok(checked) => {
            println!(
                "linearizable: {} calls, {} of them with unknown outcome, on {} keys ({:.1} s)",
                checked.calls,
                checked.unknown,
                checked.keys,
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(refused) => {
            eprintln!("{refused}");
            ExitCode::FAILURE
        }
    }
}
