use proptest::prelude::*;

use super::*;
use crate::seq::Seq;
use crate::tcp::congestion::{Algorithm, Sent};
use crate::time::Instant;

/// RFC 9438 in real numbers, with Linux's least growth.
struct Real {
    cwnd: f64,
    w_max: f64,
    w_est: f64,
    cwnd_prior: f64,
    start: f64,
    k: f64,
}

const C: f64 = 0.4;
const REAL_BETA: f64 = 717.0 / 1024.0;

impl Real {
    fn new(cwnd: f64, w_max: f64, cwnd_prior: f64, now: f64) -> Self {
        let k = ((w_max - cwnd).max(0.0) / C).cbrt();
        Self { cwnd, w_max, w_est: cwnd, cwnd_prior, start: now, k }
    }

    fn w_cubic(&self, t: f64) -> f64 {
        C * (t - self.k).powi(3) + self.w_max
    }

    fn on_ack(&mut self, now: f64, rtt: f64) {
        let target = self.w_cubic(now - self.start + rtt);
        let mut growth = if target > self.cwnd { (target - self.cwnd) / self.cwnd } else { 0.01 / self.cwnd };
        let alpha =
            if self.w_est < self.cwnd_prior { 3.0 * (1.0 - REAL_BETA) / (1.0 + REAL_BETA) } else { 1.0 };
        self.w_est += alpha / self.cwnd;
        growth = growth.max((self.w_est - self.cwnd) / self.cwnd).min(0.5);
        self.cwnd += growth;
    }
}

/// A window that is always full.
fn limited(congestion: &mut Congestion) {
    let sent = Sent {
        una: Seq(0),
        nxt: Seq(1),
        packets_out: congestion.cwnd(),
        limited: true,
        rto: Duration::from_secs(1),
        initial_window: 10,
    };
    congestion.on_sent(Instant(0), &sent);
}

fn acked(now: u64, rtt: u64) -> Acked {
    Acked {
        now: Instant(now),
        segments: 1,
        rtt: Some(Duration(rtt)),
        min_rtt: Some(Duration(rtt)),
        una: Seq(0),
        nxt: Seq(0),
        pacing_rate: 0,
        is_paced: false,
    }
}

/// A window of `cwnd` segments meets loss, is cut, and grows for `rounds` round trips beside the real numbers.
fn race(cwnd: u32, rtt: u64, rounds: u32, check: impl Fn(f64, f64)) {
    let mut congestion = Congestion::new(Algorithm::Cubic, cwnd);
    limited(&mut congestion);
    congestion.on_congestion();
    congestion.on_recovered();
    let (mut now, begins) = (1u64 << 40, f64::from(congestion.cwnd()));
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let mut real = Real::new(begins, f64::from(cwnd), f64::from(cwnd), seconds(now));
    for _ in 0..rounds {
        // Every acknowledgment of a window, spread over its round trip; sampled where windows are large.
        let segments = congestion.cwnd();
        for _ in 0..segments {
            congestion.on_ack(&acked(now, rtt));
            real.on_ack(seconds(now), seconds(rtt));
            now += rtt / u64::from(segments);
        }
        check(f64::from(congestion.cwnd()) + f64::from(congestion.fraction) / 2f64.powi(32), real.cwnd);
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(40))]
    #[test]
    fn the_window_follows_the_real_numbers_within_one_percent(cwnd in 4u32..3000, rtt_us in 100u64..200_000, rounds in 1u32..60) {
        let mut worst = None;
        let slot = std::cell::RefCell::new(&mut worst);
        race(cwnd, rtt_us * 1_000, rounds, |got, real| {
            if (got - real).abs() > real * 0.01 {
                **slot.borrow_mut() = Some((got, real));
            }
        });
        prop_assert_eq!(worst, None, "window, and what it should be");
    }

    #[test]
    fn the_curve_is_the_formula(t in 0u64..1 << 19, w_max in 1u32..1 << 20, cut in 0u32..1 << 20) {
        let cwnd = w_max - cut % w_max;
        let k = k(w_max, cwnd);
        let (real_k, unit) = ((f64::from(w_max - cwnd) / C).cbrt(), 2f64.powi(18) / 1e9);
        prop_assert!((f64::from(k) * unit - real_k).abs() <= 2.0 * unit, "K {k} and {real_k} s");
        let real = C * (t as f64 * unit - f64::from(k) * unit).powi(3) + f64::from(w_max);
        let got = w_cubic(t, k, w_max) as f64 / 1024.0;
        prop_assert!((got - real.max(0.0)).abs() <= real.abs() * 0.0001 + 0.01, "{got} and {real}");
    }

    #[test]
    fn the_root_is_a_root(x: u64) {
        let root = cube_root(x);
        prop_assert!(root.pow(3) <= x && (root + 1).checked_pow(3).is_none_or(|cube| cube > x));
    }
}

#[test]
fn a_reduction_leaves_seven_tenths() {
    let mut congestion = Congestion::new(Algorithm::Cubic, 1000);
    congestion.on_congestion();
    assert_eq!(congestion.ssthresh(), 700, "RFC 9438 §4.6");
    assert_eq!((congestion.cwnd(), congestion.w_max), (1000, 1000), "cwnd is brought there by PRR");
}

#[test]
fn a_second_loss_below_w_max_gives_room_to_others() {
    let mut congestion = Congestion::new(Algorithm::Cubic, 1000);
    congestion.on_congestion();
    congestion.on_recovered();
    congestion.on_congestion();
    assert_eq!(congestion.w_max, 595, "RFC 9438 §4.7: 700 · (1 + β)/2");
    assert_eq!(congestion.cwnd_prior(), 699, "less what was rounded");
}

#[test]
fn at_w_max_the_curve_is_flat_and_beyond_it_grows_faster() {
    // 2,000 segments at 50 ms: K is about 11.4 s.
    let mut congestion = Congestion::new(Algorithm::Cubic, 2000);
    limited(&mut congestion);
    congestion.on_congestion();
    congestion.on_recovered();
    let mut gained = Vec::new();
    let (mut now, rtt) = (0u64, 50_000_000);
    for _ in 0..20 {
        let before = congestion.cwnd();
        for _ in 0..20 {
            let segments = congestion.cwnd();
            for _ in 0..segments {
                congestion.on_ack(&acked(now, rtt));
                now += rtt / u64::from(segments);
            }
        }
        gained.push(congestion.cwnd() - before);
    }
    let least = gained.iter().enumerate().min_by_key(|(_, gain)| **gain).map(|(second, _)| second);
    assert!((8..=13).contains(&least.expect("seconds")), "flat about K: {gained:?}");
    assert!(gained[0] > gained[8] && gained[18] > gained[13], "{gained:?}");
}

#[test]
fn where_newreno_is_faster_its_window_is_kept() {
    // 10 segments at 1 ms: W_cubic needs seconds.
    race(10, 1_000_000, 200, |_, _| {});
    let mut congestion = Congestion::new(Algorithm::Cubic, 10);
    limited(&mut congestion);
    congestion.on_congestion();
    congestion.on_recovered();
    let (mut now, rtt, mut rounds) = (0u64, 1_000_000, 0);
    while congestion.cwnd() < 40 {
        let segments = congestion.cwnd();
        for _ in 0..segments {
            congestion.on_ack(&acked(now, rtt));
            now += rtt / u64::from(segments);
        }
        rounds += 1;
        assert!(rounds < 60, "slower than NewReno: {} segments", congestion.cwnd());
    }
    // α is 0.53 up to 10 segments, and 1 from there.
    assert!((30..45).contains(&rounds), "{rounds} round trips");
}

#[test]
fn an_idle_connection_does_not_jump_along_its_curve() {
    let mut congestion = Congestion::new(Algorithm::Cubic, 100);
    limited(&mut congestion);
    congestion.on_congestion();
    congestion.on_recovered();
    congestion.on_ack(&acked(0, 1_000_000));
    let ten_seconds = Duration::from_secs(10);
    congestion.on_restart(ten_seconds, Duration::from_secs(100), 10);
    let before = congestion.cwnd();
    for ack in 0..100 {
        congestion.on_ack(&acked(ten_seconds.0 + ack * 10_000, 1_000_000));
    }
    assert!(congestion.cwnd() <= before + 2, "{before} then {}", congestion.cwnd());
}
