//! The rows: which cases there are, what each compares, and the targets.

use super::case::{Arm, Case, Check, Job, Metric, Place, Target};
use super::side::{Profile, Side};

/// Message sizes of the round-trip table.
const LATENCY_SIZES: [usize; 7] = [1, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
/// Message sizes of the throughput table.
const STREAM_SIZES: [usize; 8] = [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Processors in the grid at most.
const GRID_CPUS: usize = 8;

/// "Nothing is ever slower": the least that accel owes any case. Three per cent are the noise of a run.
const NOT_SLOWER: Target = Target::TimesBetter(0.97);
/// Where both ends have a core of their own, the default is to reach 70 % of the profile that spins.
const NEAR_THE_BEST: Target = Target::AtMostTimes(1.43);
/// "Costs nothing measurable" where accel does not carry: the noise of a run is allowed.
const UNMEASURABLE: Target = Target::AtMostTimes(1.03);

/// What the plan depends on.
pub(crate) struct Setting {
    /// Client's and server's processor.
    pub(crate) cpus: (usize, usize),
    /// All that may be used, for the grid.
    pub(crate) all_cpus: Vec<usize>,
    /// The profile of the tables by size, the grid and the applications.
    pub(crate) profile: Profile,
}

impl Setting {
    fn two(&self) -> Place {
        Place::Cpus(self.cpus.0, self.cpus.1)
    }

    fn one(&self) -> Place {
        Place::Cpus(self.cpus.1, self.cpus.1)
    }
}

/// Every case, in the order of the table.
pub(crate) fn cases(setting: &Setting) -> Vec<Case> {
    let mut all = vec![pingpong(setting), epoll(setting)];
    all.extend(streams(setting));
    all.push(crr(setting));
    all.extend(short_lived(setting));
    all.push(requests(setting));
    all.extend(one_core(setting));
    all.push(many(setting));
    all.extend(passthrough(setting));
    all.extend(plain_peer(setting));
    all.push(idle(setting));
    all.extend(latency_by_size(setting));
    all.extend(throughput_by_size(setting));
    all.extend(grid(setting));
    all.extend(applications(setting));
    all
}

/// An arm whose two ends are on the same side.
fn arm(name: &str, job: Job, side: Side, place: Place) -> Arm {
    Arm { name: name.to_owned(), job, client: side, server: side, place }
}

fn check(baseline: usize, subject: usize, target: Target) -> Check {
    Check { baseline, subject, target }
}

/// A case with one kernel arm and one accel arm that do the same.
fn two_arms(
    name: &str,
    group: &'static str,
    what: &str,
    metric: Metric,
    job: &Job,
    place: Place,
    profile: Profile,
) -> Case {
    let accel = format!("accel {}", profile.name());
    Case {
        name: name.to_owned(),
        group,
        what: what.to_owned(),
        metric,
        arms: vec![
            arm("kernel", job.clone(), Side::Kernel, place),
            arm(&accel, job.clone(), Side::Accel(profile), place),
        ],
        checks: vec![check(0, 1, NOT_SLOWER)],
        quick: false,
    }
}

/// The third arm of a case: the default profile beside the latency profile.
fn with_default(mut case: Case, job: Job, place: Place) -> Case {
    case.arms.push(arm("accel default", job, Side::Accel(Profile::Default), place));
    case.checks.push(check(0, case.arms.len() - 1, NOT_SLOWER));
    case
}

fn pingpong(setting: &Setting) -> Case {
    let blocking = Job::PingPong { server: "block", client: "block", size: 64 };
    let spinning = Job::PingPong { server: "spin", client: "spin", size: 64 };
    let (two, one) = (setting.two(), setting.one());
    let mut case = Case {
        name: "pingpong".to_owned(),
        group: "pingpong",
        what: "64 B round trip, blocking send and recv".to_owned(),
        metric: Metric::LatencyNs,
        arms: vec![
            arm("kernel blocking, 2 cores", blocking.clone(), Side::Kernel, two),
            arm("kernel spinning, 2 cores", spinning, Side::Kernel, two),
            arm("kernel blocking, 1 core", blocking.clone(), Side::Kernel, one),
            arm("accel latency, 2 cores", blocking.clone(), Side::Accel(Profile::Latency), two),
            arm("accel default, 2 cores", blocking, Side::Accel(Profile::Default), two),
        ],
        checks: Vec::new(),
        quick: true,
    };
    let wanted = [100.0, 15.0, 25.0].map(Target::TimesBetter);
    case.checks.extend(wanted.into_iter().enumerate().map(|(baseline, target)| check(baseline, 3, target)));
    case.checks.push(check(0, 4, NOT_SLOWER));
    if setting.cpus.0 != setting.cpus.1 {
        case.checks.push(check(3, 4, NEAR_THE_BEST));
        case.arms.push(arm("cache line, 2 cores", Job::Line, Side::Kernel, two));
        case.checks.push(check(5, 3, Target::AtMostTimes(4.0)));
    }
    case
}

fn epoll(setting: &Setting) -> Case {
    let sleeping = Job::PingPong { server: "epoll", client: "block", size: 64 };
    let spinning = Job::PingPong { server: "epollspin", client: "spin", size: 64 };
    let two = setting.two();
    let mut case = Case {
        name: "epoll".to_owned(),
        group: "epoll",
        what: "64 B round trip, server: epoll_wait + recv + send".to_owned(),
        metric: Metric::LatencyNs,
        arms: vec![
            arm("kernel epoll, 2 cores", sleeping.clone(), Side::Kernel, two),
            arm("kernel epoll spinning, 2 cores", spinning, Side::Kernel, two),
            arm("kernel epoll, 1 core", sleeping.clone(), Side::Kernel, setting.one()),
            arm("accel latency, 2 cores", sleeping.clone(), Side::Accel(Profile::Latency), two),
            arm("accel default, 2 cores", sleeping, Side::Accel(Profile::Default), two),
        ],
        checks: Vec::new(),
        quick: true,
    };
    let wanted = [NOT_SLOWER, Target::TimesBetter(12.0), NOT_SLOWER];
    case.checks.extend(wanted.into_iter().enumerate().map(|(baseline, target)| check(baseline, 3, target)));
    case.checks.push(check(0, 4, NOT_SLOWER));
    if setting.cpus.0 != setting.cpus.1 {
        case.checks.push(check(3, 4, NEAR_THE_BEST));
    }
    case
}

/// The target of a case's first comparison.
fn aimed(mut case: Case, least: f64) -> Case {
    case.checks[0].target = Target::TimesBetter(least);
    case
}

fn streams(setting: &Setting) -> Vec<Case> {
    let rows = [
        ("stream-64k", "one direction, 64 KiB writes", 64 << 10, Metric::BytesPerSecond, 2.5),
        ("stream-64", "one direction, 64 B writes", 64, Metric::PerSecond("msg"), 15.0),
    ];
    rows.into_iter()
        .map(|(name, what, size, metric, least)| {
            let job = Job::Stream { size };
            let case = two_arms(name, "stream", what, metric, &job, setting.two(), Profile::Throughput);
            let case = aimed(case, least);
            Case { quick: true, ..with_default(case, job, setting.two()) }
        })
        .collect()
}

fn crr(setting: &Setting) -> Case {
    let metric = Metric::PerSecond("conn");
    let what = "connect, 64 B request, response, close";
    let job = Job::Crr { exchanges: 1 };
    let case = two_arms("crr", "crr", what, metric, &job, setting.two(), Profile::Latency);
    let mut case = with_default(aimed(case, 0.9), job, setting.two());
    case.checks[1].target = Target::TimesBetter(0.9);
    case
}

/// Connections that end after a few requests, as those of a script that opens one per run: an upgrade must not cost
/// them more than it brings. On two cores, and where both ends share one.
fn short_lived(setting: &Setting) -> Vec<Case> {
    let places = [("short", "two cores", setting.two()), ("one-core-short", "one core", setting.one())];
    let lives = [4, 16, 64];
    let rows = places.into_iter().flat_map(|place| lives.map(|exchanges| (place, exchanges)));
    rows.map(|((name, whereabouts, place), exchanges)| {
        let (name, what) =
            (format!("{name}-{exchanges}"), format!("connections of {exchanges} requests, {whereabouts}"));
        let (metric, job) = (Metric::PerSecond("conn"), Job::Crr { exchanges });
        aimed(two_arms(&name, "short", &what, metric, &job, place, Profile::Default), 0.9)
    })
    .collect()
}

fn requests(setting: &Setting) -> Case {
    let job = Job::Many { connections: 50, active: 50 };
    let metric = Metric::PerSecond("req");
    let what = "built-in epoll server and client, 50 busy connections, 64 B";
    let case = two_arms("requests", "requests", what, metric, &job, setting.two(), Profile::Latency);
    Case { quick: true, ..with_default(case, job, setting.two()) }
}

/// Both ends on one core: profile `safe`, and the default.
fn one_core(setting: &Setting) -> Vec<Case> {
    let rows = [
        (
            "one-core-pingpong",
            "64 B round trip, blocking, one core",
            Metric::LatencyNs,
            Job::PingPong { server: "block", client: "block", size: 64 },
        ),
        (
            "one-core-epoll",
            "64 B round trip, epoll server, one core",
            Metric::LatencyNs,
            Job::PingPong { server: "epoll", client: "block", size: 64 },
        ),
        (
            "one-core-stream-64k",
            "64 KiB writes, one core",
            Metric::BytesPerSecond,
            Job::Stream { size: 64 << 10 },
        ),
        ("one-core-stream-64", "64 B writes, one core", Metric::PerSecond("msg"), Job::Stream { size: 64 }),
        (
            "one-core-crr",
            "connect, request, response, close, one core",
            Metric::PerSecond("conn"),
            Job::Crr { exchanges: 1 },
        ),
    ];
    rows.into_iter()
        .map(|(name, what, metric, job)| {
            let case = two_arms(name, "one-core", what, metric, &job, setting.one(), Profile::Safe);
            with_default(case, job, setting.one())
        })
        .collect()
}

/// 10 busy connections alone, and among 10,000.
fn many(setting: &Setting) -> Case {
    let few = Job::Many { connections: 10, active: 10 };
    let crowd = Job::Many { connections: 10_000, active: 10 };
    let accel = Side::Accel(setting.profile);
    let two = setting.two();
    Case {
        name: "many".to_owned(),
        group: "many",
        what: "cost of a request: 10 busy connections, alone or among 10,000 (epoll)".to_owned(),
        metric: Metric::CostNs,
        arms: vec![
            arm("kernel, 10", few.clone(), Side::Kernel, two),
            arm("kernel, 10,000", crowd.clone(), Side::Kernel, two),
            arm(&format!("accel {}, 10", setting.profile.name()), few, accel, two),
            arm(&format!("accel {}, 10,000", setting.profile.name()), crowd, accel, two),
        ],
        checks: vec![
            check(0, 1, Target::Shown),
            check(0, 2, NOT_SLOWER),
            check(1, 3, NOT_SLOWER),
            check(2, 3, Target::AtMostTimes(1.2)),
        ],
        quick: false,
    }
}

fn passthrough(setting: &Setting) -> Vec<Case> {
    let rows = [
        ("pass-read", "read-zero", "read of 64 B from /dev/zero"),
        ("pass-write", "write-null", "write of 64 B to /dev/null"),
        ("pass-pread", "pread-file", "pread of a 64 B file"),
        ("pass-pwrite", "pwrite-file", "pwrite of a 64 B file"),
        ("pass-udp", "udp-self", "UDP to itself, send + recv"),
    ];
    rows.into_iter()
        .map(|(name, what, text)| {
            let job = Job::Passthrough { what };
            let case =
                two_arms(name, "passthrough", text, Metric::LatencyNs, &job, setting.two(), Profile::Default);
            Case { checks: vec![check(0, 1, UNMEASURABLE)], ..case }
        })
        .collect()
}

/// TCP to a program that does not run under accel, from either end.
fn plain_peer(setting: &Setting) -> Vec<Case> {
    let rows = [
        ("pass-tcp", "64 B round trip, one core, only the client under accel"),
        ("pass-tcp-server", "64 B round trip, one core, only the server under accel"),
    ];
    let job = Job::PingPong { server: "block", client: "block", size: 64 };
    let one = setting.one();
    rows.map(|(name, what)| {
        let mut case = two_arms(name, "passthrough", what, Metric::LatencyNs, &job, one, Profile::Default);
        let arm = &mut case.arms[1];
        *(if name == "pass-tcp" { &mut arm.server } else { &mut arm.client }) = Side::Kernel;
        case.checks = vec![check(0, 1, UNMEASURABLE)];
        case
    })
    .into()
}

fn idle(setting: &Setting) -> Case {
    let job = Job::Idle { connections: 100 };
    let what = "processor time of an epoll server with 100 silent connections, 2 s";
    let case = two_arms("idle", "idle", what, Metric::CpuMs, &job, setting.two(), Profile::Default);
    Case { checks: vec![check(0, 1, Target::AtMostMore(20.0))], ..case }
}

/// Sizes as people write them.
pub(crate) fn size_name(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 20 => format!("{}M", b >> 20),
        b if b >= 1 << 10 => format!("{}K", b >> 10),
        b => b.to_string(),
    }
}

/// Two programs that spin on one core wait for the scheduler's tick: that case is left out.
fn latency_by_size(setting: &Setting) -> Vec<Case> {
    let modes = [
        ("block", "block", "block", setting.two(), "2-cores"),
        ("epoll", "epoll", "block", setting.two(), "2-cores"),
        ("spin", "spin", "spin", setting.two(), "2-cores"),
        ("block", "block", "block", setting.one(), "1-core"),
        ("epoll", "epoll", "block", setting.one(), "1-core"),
    ];
    let mut all = Vec::new();
    for (mode, server, client, place, place_name) in modes {
        for size in LATENCY_SIZES {
            let name = format!("latency-{mode}-{place_name}-{}", size_name(size));
            let what = format!("{} B round trip, {mode}, {place_name}", size_name(size));
            let job = Job::PingPong { server, client, size };
            all.push(two_arms(&name, "latency", &what, Metric::LatencyNs, &job, place, setting.profile));
        }
    }
    all
}

fn throughput_by_size(setting: &Setting) -> Vec<Case> {
    let row = |size| {
        let name = format!("throughput-{}", size_name(size));
        let what = format!("one direction, {} B writes", size_name(size));
        let job = Job::Stream { size };
        two_arms(&name, "throughput", &what, Metric::BytesPerSecond, &job, setting.two(), setting.profile)
    };
    STREAM_SIZES.into_iter().map(row).collect()
}

/// The processors of the grid: all, or some evenly chosen.
pub(crate) fn grid_cpus(all: &[usize]) -> Vec<usize> {
    let count = all.len().min(GRID_CPUS);
    (0..count).map(|index| all[index * all.len() / count]).collect()
}

fn grid(setting: &Setting) -> Vec<Case> {
    let tcp = Job::PingPong { server: "block", client: "block", size: 64 };
    let cpus = grid_cpus(&setting.all_cpus);
    let pair = |&(client, server): &(usize, usize)| {
        let place = Place::Cpus(client, server);
        let accel = format!("tcp, accel {}", setting.profile.name());
        Case {
            name: format!("grid-{client}-{server}"),
            group: "grid",
            what: format!("64 B round trip, blocking, processor {client} to {server}"),
            metric: Metric::LatencyNs,
            arms: vec![
                arm("tcp, kernel", tcp.clone(), Side::Kernel, place),
                arm("unix, kernel", Job::Pair { transport: "unix", size: 64 }, Side::Kernel, place),
                arm("pipe, kernel", Job::Pair { transport: "pipe", size: 64 }, Side::Kernel, place),
                arm(&accel, tcp.clone(), Side::Accel(setting.profile), place),
            ],
            checks: (0..3)
                .map(|baseline| check(baseline, 3, if baseline == 0 { NOT_SLOWER } else { Target::Shown }))
                .collect(),
            quick: false,
        }
    };
    let pairs: Vec<_> = cpus.iter().flat_map(|&a| cpus.iter().map(move |&b| (a, b))).collect();
    pairs.iter().map(pair).collect()
}

fn applications(setting: &Setting) -> Vec<Case> {
    let requests = Metric::PerSecond("req");
    let redis = |test, clients, pipeline| Job::Redis { test, clients, pipeline };
    let (two, free) = (setting.two(), Place::Free);
    let rows = [
        ("redis-get-c1", "redis GET, 1 connection", requests, redis("get", 1, 1), two, 8.0),
        ("redis-get-c50", "redis GET, 50 connections", requests, redis("get", 50, 1), two, 4.0),
        (
            "redis-get-c50-p16",
            "redis GET, 50 connections, 16 pipelined",
            requests,
            redis("get", 50, 16),
            two,
            1.3,
        ),
        ("redis-set-c1", "redis SET, 1 connection", requests, redis("set", 1, 1), two, 8.0),
        ("redis-set-c50", "redis SET, 50 connections", requests, redis("set", 50, 1), two, 4.0),
        (
            "redis-set-c50-p16",
            "redis SET, 50 connections, 16 pipelined",
            requests,
            redis("set", 50, 16),
            two,
            1.3,
        ),
        (
            "memcached-c1",
            "memcached get 64 B, 1 connection",
            requests,
            Job::Memcached { clients: 1 },
            two,
            0.97,
        ),
        (
            "memcached-c50",
            "memcached get 64 B, 50 connections",
            requests,
            Job::Memcached { clients: 50 },
            two,
            3.0,
        ),
        (
            "nginx-1",
            "nginx 1 worker, wrk -c50, 612 B, keep-alive",
            requests,
            Job::Nginx { workers: 1 },
            two,
            2.0,
        ),
        (
            "nginx-2",
            "nginx 2 workers, wrk -c50, 612 B, not pinned",
            requests,
            Job::Nginx { workers: 2 },
            free,
            2.0,
        ),
        (
            "sockperf",
            "sockperf ping-pong TCP 64 B (half a round trip)",
            Metric::LatencyNs,
            Job::Sockperf,
            two,
            15.0,
        ),
    ];
    rows.into_iter()
        .map(|(name, what, metric, job, place, least)| {
            aimed(two_arms(name, "apps", what, metric, &job, place, setting.profile), least)
        })
        .collect()
}
