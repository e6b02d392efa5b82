//! The rounds: every arm of every case once per round, so that what the machine does meanwhile hits all.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::case::{Arm, Case, Results};
use super::job::{self, Context, Failure};
use super::{sock, table};

/// Runs all rounds, or until Ctrl-C; `[case][arm]`.
pub(crate) fn rounds(cases: &[Case], rounds: u32, context: &Context) -> Vec<Vec<Results>> {
    let mut results: Vec<Vec<Results>> =
        cases.iter().map(|case| vec![Results::default(); case.arms.len()]).collect();
    let mut progress = Progress::new(cases, rounds, context);
    for round in 1..=rounds {
        for (case, results) in cases.iter().zip(&mut results) {
            for (arm, result) in case.arms.iter().zip(results) {
                if !sock::interrupted() {
                    progress.begin(case, arm, round);
                    let failure = one(case, arm, result, context);
                    progress.finish(case, arm, failure);
                }
            }
        }
    }
    progress.end();
    results
}

/// One run of one arm, unless it has failed before; the failure, if this is it.
fn one<'a>(case: &Case, arm: &Arm, result: &'a mut Results, context: &Context) -> Option<&'a Failure> {
    if result.failure.is_some() {
        return None;
    }
    match job::run(arm, case.metric, context) {
        Ok(sample) => result.samples.push(sample),
        Err(_) if sock::interrupted() => {}
        Err(failure) => result.failure = Some(failure),
    }
    result.failure.as_ref()
}

/// The line on standard error that says what runs, and how long it will take.
struct Progress {
    rounds: u32,
    runs: usize,
    done: usize,
    /// Seconds, as estimated, of all runs and of those that are done.
    estimated: f64,
    estimated_done: f64,
    start: Instant,
    measure: Duration,
    terminal: bool,
}

impl Progress {
    fn new(cases: &[Case], rounds: u32, context: &Context) -> Self {
        let arms = || cases.iter().flat_map(|case| &case.arms);
        let one_round: f64 = arms().map(|arm| job::estimate(&arm.job, context.measure)).sum();
        Self {
            rounds,
            runs: arms().count() * rounds as usize,
            done: 0,
            estimated: one_round * f64::from(rounds),
            estimated_done: 0.0,
            start: Instant::now(),
            measure: context.measure,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Seconds to go: the estimate, corrected by how the estimate has held so far.
    fn left(&self) -> f64 {
        let pace = if self.estimated_done < 1.0 {
            1.0
        } else {
            self.start.elapsed().as_secs_f64() / self.estimated_done
        };
        (self.estimated - self.estimated_done) * pace
    }

    fn begin(&self, case: &Case, arm: &Arm, round: u32) {
        if self.terminal {
            eprint!("\r\x1b[K{} {}: {}", self.position(round), case.name, arm.name);
            let _ = std::io::stderr().flush();
        } else if std::ptr::eq(arm, &raw const case.arms[0]) {
            eprintln!("{} {}", self.position(round), case.name);
        }
    }

    fn position(&self, round: u32) -> String {
        let left = table::seconds(self.left());
        format!("[{}/{}] round {round}/{}, {left} left:", self.done + 1, self.runs, self.rounds)
    }

    fn finish(&mut self, case: &Case, arm: &Arm, failure: Option<&Failure>) {
        self.done += 1;
        self.estimated_done += job::estimate(&arm.job, self.measure);
        if let Some(failure) = failure {
            let clear = if self.terminal { "\r\x1b[K" } else { "" };
            eprintln!("{clear}{}: {}: {}", case.name, arm.name, failure.text());
        }
    }

    fn end(&self) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let how = if sock::interrupted() { "interrupted after" } else { "measured for" };
        eprintln!("{clear}{how} {}", table::seconds(self.start.elapsed().as_secs_f64()));
    }
}
