//! What a measurement is: a case has arms that are run in turn, and checks that compare two of them.

use super::job::Failure;
use super::side::Side;
use super::stats::{self, Latency};

/// What an arm's figure means, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Median of a distribution of nanoseconds: less is better.
    LatencyNs,
    /// Nanoseconds of one unit of work: less is better.
    CostNs,
    /// Milliseconds of processor time: less is better.
    CpuMs,
    /// More is better.
    BytesPerSecond,
    /// More is better; the word is what is counted.
    PerSecond(&'static str),
}

impl Metric {
    /// Whether a greater figure is a better one.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::BytesPerSecond | Self::PerSecond(_))
    }
}

/// What the ratio of a check must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// The subject is at least this many times as good as the baseline.
    TimesBetter(f64),
    /// The subject's figure is at most this many times the baseline's (both: less is better).
    AtMostTimes(f64),
    /// The subject's figure is at most the baseline's plus this.
    AtMostMore(f64),
    /// Shown, not judged.
    Shown,
}

/// One comparison, by the indices of two arms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) baseline: usize,
    pub(crate) subject: usize,
    pub(crate) target: Target,
}

impl Check {
    /// The ratio that the target speaks of, and whether the target is met (`None`: not judged).
    pub(crate) fn judge(&self, metric: Metric, baseline: f64, subject: f64) -> (f64, Option<bool>) {
        let better = if metric.more_is_better() { subject / baseline } else { baseline / subject };
        match self.target {
            Target::TimesBetter(least) => (better, Some(better >= least)),
            Target::AtMostTimes(most) => (subject / baseline, Some(subject <= most * baseline)),
            Target::AtMostMore(most) => (subject / baseline, Some(subject <= baseline + most)),
            Target::Shown => (better, None),
        }
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// Two threads bounce a cache line.
    Line,
    /// Round trips over TCP; the modes are those of the workers.
    PingPong { server: &'static str, client: &'static str, size: usize },
    /// Round trips over `unix` or `pipe`.
    Pair { transport: &'static str, size: usize },
    /// One direction.
    Stream { size: usize },
    /// Connect, so many requests and responses, close.
    Crr { exchanges: u64 },
    /// Requests on `active` of `connections`.
    Many { connections: usize, active: usize },
    /// Calls that accel does not carry.
    Passthrough { what: &'static str },
    /// An epoll server whose connections are silent.
    Idle { connections: usize },
    /// redis-server and redis-benchmark.
    Redis { test: &'static str, clients: u32, pipeline: u32 },
    /// memcached and the built-in client.
    Memcached { clients: u32 },
    /// nginx and wrk.
    Nginx { workers: u32 },
    /// sockperf ping-pong.
    Sockperf,
}

/// Where the two ends run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The client on the first, the server on the second.
    Cpus(usize, usize),
    /// Where the scheduler likes.
    Free,
}

/// One of the things that a case compares.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) job: Job,
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) place: Place,
}

/// A row of the plan.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Cases that are selected and drawn together.
    pub(crate) group: &'static str,
    pub(crate) what: String,
    pub(crate) metric: Metric,
    pub(crate) arms: Vec<Arm>,
    pub(crate) checks: Vec<Check>,
    /// Whether `--quick` has it.
    pub(crate) quick: bool,
}

impl Case {
    /// Size of the messages, where all arms have one.
    pub(crate) fn job_size(&self) -> Option<usize> {
        match self.arms.first()?.job {
            Job::PingPong { size, .. } | Job::Stream { size } => Some(size),
            _ => None,
        }
    }
}

/// What one run of an arm found.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) figure: f64,
    pub(crate) latency: Option<Latency>,
    /// Share of the bytes that did not travel through the kernel's TCP.
    pub(crate) ring: Option<f64>,
    /// Messages, requests or connections of the run.
    pub(crate) messages: Option<f64>,
    /// Packets that crossed the loopback interface meanwhile, by anyone.
    pub(crate) loopback_packets: u64,
}

/// All runs of an arm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    /// Why a run failed, or why the arm cannot run here; nothing is run after that.
    pub(crate) failure: Option<Failure>,
}

impl Results {
    /// Median of the runs' figures. One failed run leaves none: what loses or corrupts data, or hangs, has
    /// no speed.
    pub(crate) fn figure(&self) -> Option<f64> {
        let sound = self.failure.is_none() && !self.samples.is_empty();
        sound.then(|| stats::median(&self.figures()))
    }

    /// The figure of each run.
    pub(crate) fn figures(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.figure).collect()
    }

    /// Median over the runs of a percentile of each.
    pub(crate) fn percentile(&self, percentile: f64) -> Option<f64> {
        let each: Vec<f64> =
            self.samples.iter().filter_map(|s| s.latency.as_ref()).map(|l| l.at(percentile)).collect();
        (!each.is_empty()).then(|| stats::median(&each))
    }

    /// All samples of all runs together.
    pub(crate) fn merged(&self) -> Option<Latency> {
        self.figure()?;
        let mut all: Option<Latency> = None;
        for latency in self.samples.iter().filter_map(|sample| sample.latency.as_ref()) {
            all.get_or_insert_with(Latency::new).add(latency);
        }
        all
    }

    /// Median share of the bytes that went beside the kernel.
    pub(crate) fn ring(&self) -> Option<f64> {
        let each: Vec<f64> = self.samples.iter().filter_map(|sample| sample.ring).collect();
        (!each.is_empty()).then(|| stats::median(&each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_run_leaves_no_figure() {
        let sample = Sample { figure: 5.0, latency: None, ring: None, messages: None, loopback_packets: 0 };
        let mut results = Results { samples: vec![sample], ..Results::default() };
        assert_eq!(results.figure(), Some(5.0));
        results.failure = Some(Failure::Failed("corrupted".to_owned()));
        assert_eq!(results.figure(), None);
    }

    fn judge(target: Target, metric: Metric, baseline: f64, subject: f64) -> (f64, Option<bool>) {
        Check { baseline: 0, subject: 1, target }.judge(metric, baseline, subject)
    }

    #[test]
    fn a_ratio_above_one_is_better_whatever_the_metric() {
        assert_eq!(judge(Target::TimesBetter(2.0), Metric::LatencyNs, 10.0, 5.0), (2.0, Some(true)));
        assert_eq!(judge(Target::TimesBetter(2.0), Metric::BytesPerSecond, 10.0, 15.0), (1.5, Some(false)));
    }

    #[test]
    fn limits_count_from_the_baseline() {
        assert_eq!(judge(Target::AtMostTimes(4.0), Metric::LatencyNs, 100.0, 300.0), (3.0, Some(true)));
        assert_eq!(judge(Target::AtMostMore(20.0), Metric::CpuMs, 1.0, 30.0).1, Some(false));
        assert_eq!(judge(Target::Shown, Metric::LatencyNs, 1.0, 2.0), (0.5, None));
    }
}
