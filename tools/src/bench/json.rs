//! `--json`: everything that was measured, for other programs.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::case::{Case, Check, Metric, Results, Target};
use super::job::Context;
use super::plan::Setting;
use super::stats::Latency;
use super::worker;

/// The document.
pub(crate) fn document(
    cases: &[Case],
    results: &[Vec<Results>],
    setting: &Setting,
    context: &Context,
) -> Value {
    json!({
        "format": 1,
        "unix_time": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        "machine": machine(),
        "client_cpu": setting.cpus.0,
        "server_cpu": setting.cpus.1,
        "profile": setting.profile.name(),
        "library": context.sides.library.as_ref().map(|path| path.display().to_string()),
        "set": context.sides.extra,
        "measure_ms": context.measure.as_millis() as u64,
        "warm_up_messages": worker::WARM_UP,
        "cases": cases.iter().zip(results).map(|(case, arms)| one(case, arms)).collect::<Vec<_>>(),
    })
}

fn machine() -> Value {
    let line = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let cpu = line("/proc/cpuinfo").and_then(|text| {
        let model = text.lines().find(|line| line.starts_with("model name"))?;
        Some(model.split_once(':')?.1.trim().to_owned())
    });
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "cpu": cpu,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "congestion_control": line("/proc/sys/net/ipv4/tcp_congestion_control"),
    })
}

fn unit(metric: Metric) -> &'static str {
    match metric {
        Metric::LatencyNs | Metric::CostNs => "ns",
        Metric::CpuMs => "ms",
        Metric::BytesPerSecond => "bytes/s",
        Metric::PerSecond("msg") => "messages/s",
        Metric::PerSecond("conn") => "connections/s",
        Metric::PerSecond(_) => "requests/s",
    }
}

fn one(case: &Case, arms: &[Results]) -> Value {
    let arm = |(arm, result): (&super::case::Arm, &Results)| {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(arm.name));
        object.insert("figure".to_owned(), json!(result.figure()));
        object.insert("rounds".to_owned(), json!(result.figures()));
        object.insert("ring_share".to_owned(), json!(result.ring()));
        object.insert("messages".to_owned(), result.samples.iter().map(|s| json!(s.messages)).collect());
        object.insert(
            "loopback_packets".to_owned(),
            result.samples.iter().map(|s| json!(s.loopback_packets)).collect(),
        );
        object.insert("latency_ns".to_owned(), json!(result.merged().as_ref().map(Latency::percentiles)));
        object.insert("failure".to_owned(), json!(result.failure.as_ref().map(super::job::Failure::text)));
        Value::Object(object)
    };
    json!({
        "name": case.name,
        "group": case.group,
        "what": case.what,
        "unit": unit(case.metric),
        "more_is_better": case.metric.more_is_better(),
        "arms": case.arms.iter().zip(arms).map(arm).collect::<Vec<_>>(),
        "checks": case.checks.iter().map(|check| comparison(case, arms, check)).collect::<Vec<_>>(),
    })
}

fn comparison(case: &Case, arms: &[Results], check: &Check) -> Value {
    let judged = match (arms[check.baseline].figure(), arms[check.subject].figure()) {
        (Some(baseline), Some(subject)) => Some(check.judge(case.metric, baseline, subject)),
        _ => None,
    };
    let target = match check.target {
        Target::TimesBetter(least) => json!({ "times_better": least }),
        Target::AtMostTimes(most) => json!({ "at_most_times": most }),
        Target::AtMostMore(most) => json!({ "at_most_more": most }),
        Target::Shown => Value::Null,
    };
    json!({
        "baseline": case.arms[check.baseline].name,
        "subject": case.arms[check.subject].name,
        "ratio": judged.map(|(ratio, _)| ratio),
        "target": target,
        "met": judged.and_then(|(_, met)| met),
    })
}
