//! What opens a breaker, and what closes it, at given times.

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What is asked for does not matter.
fn admit(breaker: &mut Breaker, now: Instant) -> Option<Pass> {
    breaker.admit(path(0), now)
}

fn path(number: u32) -> Asked {
    Asked::of(&format!("/{number}"))
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::new(ORIGIN, now);
    let pass = admit(&mut breaker, now).unwrap();
    (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(pass, None, now));
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_a_good_trial_closes_it() {
    let now = Instant::now();
    let mut breaker = opened(now);
    assert_eq!((breaker.state(now), admit(&mut breaker, now)), (State::Open, None));
    let later = now + ORIGIN.pause;
    assert_eq!(breaker.state(later), State::HalfOpen);
    let trial = admit(&mut breaker, later).unwrap();
    assert_eq!(admit(&mut breaker, later), None);
    breaker.good(trial, later);
    assert_eq!(breaker.state(later), State::Closed);
    assert!(admit(&mut breaker, later).is_some() && admit(&mut breaker, later).is_some());
}

#[test]
fn a_failed_trial_doubles_the_pause_up_to_its_limit() {
    let mut now = Instant::now();
    let mut breaker = opened(now);
    let mut pause = ORIGIN.pause;
    for _ in 0..8 {
        assert!(!breaker.would_admit(now + pause - ms(1)));
        now += pause;
        let trial = admit(&mut breaker, now).unwrap();
        breaker.failed(trial, None, now);
        pause = (pause * 2).min(ORIGIN.pause_max);
    }
    assert_eq!(pause, ORIGIN.pause_max);
}

#[test]
fn an_abandoned_trial_leaves_its_place_to_the_next() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + ORIGIN.pause;
    let first = admit(&mut breaker, later).unwrap();
    breaker.abandoned(first);
    let second = admit(&mut breaker, later).unwrap();
    // Even one that nobody reported on, which then comes too late.
    let third = admit(&mut breaker, later + TRIAL_MAX).unwrap();
    breaker.good(second, later + TRIAL_MAX);
    assert_eq!(breaker.state(later + TRIAL_MAX), State::HalfOpen);
    breaker.good(third, later + TRIAL_MAX);
    assert_eq!(breaker.state(later + TRIAL_MAX), State::Closed);
}

#[test]
fn half_failing_opens_it_and_old_failures_are_forgotten() {
    let now = Instant::now();
    let mut breaker = Breaker::new(ORIGIN, now);
    let pass = admit(&mut breaker, now).unwrap();
    for n in 0..WINDOW_REQUESTS_MIN {
        assert_eq!(breaker.state(now), State::Closed, "after {n}");
        if n % 2 == 0 { breaker.good(pass, now) } else { breaker.failed(pass, None, now) }
    }
    assert_eq!(breaker.state(now), State::Open);
    let mut breaker = Breaker::new(ORIGIN, now);
    for n in 0..u64::from(WINDOW_REQUESTS_MIN) * 3 {
        let at = now + ms(n * 1100);
        let pass = admit(&mut breaker, at).unwrap();
        if n % 2 == 0 {
            breaker.good(pass, at)
        } else {
            breaker.failed(pass, None, at)
        }
        assert_eq!(breaker.state(at), State::Closed);
    }
}

#[test]
fn who_began_before_ends_no_trial_and_opens_nothing_that_closed_since() {
    let now = Instant::now();
    let mut breaker = Breaker::new(ORIGIN, now);
    let before = admit(&mut breaker, now).unwrap();
    (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(before, None, now));
    breaker.good(before, now + ms(1));
    assert_eq!(breaker.state(now + ms(1)), State::Open);
    let later = now + ORIGIN.pause;
    let trial = admit(&mut breaker, later).unwrap();
    let reports: [&dyn Fn(&mut Breaker); 3] = [
        &|breaker| breaker.good(before, later),
        &|breaker| breaker.failed(before, None, later),
        &|breaker| breaker.abandoned(before),
    ];
    for report in reports {
        report(&mut breaker);
        assert_eq!((breaker.state(later), admit(&mut breaker, later)), (State::HalfOpen, None));
    }
    breaker.answered(trial, later);
    assert_eq!(breaker.state(later), State::Closed);
    (0..ORIGIN.in_row_max).for_each(|_| breaker.failed(before, None, later));
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn blame_opens_it_but_ends_no_trial() {
    let now = Instant::now();
    let mut breaker = Breaker::new(PEER, now);
    (0..PEER.in_row_max).for_each(|_| breaker.blamed(now));
    let later = now + PEER.pause;
    let trial = admit(&mut breaker, later).unwrap();
    breaker.blamed(later);
    breaker.good(trial, later);
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn no_number_of_failures_of_one_path_opens_it() {
    let now = Instant::now();
    for apart in [ms(1), ms(900), ms(10_000), ms(30_000)] {
        let mut breaker = Breaker::new(ORIGIN, now);
        for n in 0..ORIGIN.in_row_max * 10 {
            let at = now + apart * n;
            let pass = breaker.admit(path(1), at).unwrap();
            breaker.failed(pass, Some(path(1)), at);
            assert_eq!(breaker.state(at), State::Closed, "{n} each {apart:?}");
        }
    }
}

/// A breaker to which so many paths fail at once, `after` the last answer.
fn failed(paths: u32, after: Duration, now: Instant) -> (Breaker, Instant) {
    let (mut breaker, at) = (Breaker::new(ORIGIN, now), now + after);
    let pass = admit(&mut breaker, now).unwrap();
    for n in 0..paths {
        assert_eq!(breaker.state(at), State::Closed, "after {n}");
        (0..9).for_each(|_| breaker.failed(pass, Some(path(n)), at));
    }
    (breaker, at)
}

#[test]
fn paths_that_all_fail_open_it() {
    let (now, many) = (Instant::now(), u32::try_from(PATHS_MAX).unwrap());
    let (breaker, at) = failed(many, SILENCE_MIN, now);
    assert_eq!(breaker.state(at), State::Open);
    // More seldom.
    let (mut breaker, _) = failed(1, SILENCE_MIN, now);
    for n in 1..ORIGIN.in_row_max {
        let at = now + SILENCE_MIN + ms(1100) * n;
        assert_eq!(breaker.state(at), State::Closed, "after {n}");
        breaker.failed(breaker.pass, Some(path(n)), at);
    }
    assert!(breaker.open.is_some());
}

#[test]
fn no_number_of_paths_opens_it_while_others_are_answered() {
    let (now, many) = (Instant::now(), ORIGIN.in_row_max * 2);
    let (mut breaker, mut at) = failed(many, SILENCE_MIN - ms(1), now);
    for _ in 0..9 {
        let pass = breaker.admit(path(many), at).unwrap();
        breaker.answered(pass, at);
        at += SILENCE_MIN - ms(1);
        (0..many).for_each(|n| breaker.failed(pass, Some(path(n)), at));
        assert_eq!(breaker.state(at), State::Closed);
    }
    // Once nothing is answered any more, it takes as many paths anew.
    breaker.failed(breaker.pass, Some(path(0)), at + ms(1));
    assert_eq!(breaker.state(at + ms(1)), State::Open);
    let pass = admit(&mut Breaker::new(ORIGIN, now), now).unwrap();
    let mut breaker = Breaker::new(ORIGIN, now);
    for n in 0..many {
        let at = now + ms(100) * n;
        breaker.failed(pass, Some(path(n)), at);
        breaker.answered(pass, at);
        assert_eq!(breaker.state(at), State::Closed);
    }
}

#[test]
fn a_path_that_failed_as_a_trial_gives_way_and_makes_no_pause_longer() {
    let now = Instant::now();
    let (mut breaker, bad) = (opened(now), path(1));
    let first = now + ORIGIN.pause;
    let trial = breaker.admit(bad, first).unwrap();
    breaker.failed(trial, Some(bad), first);
    let pause = ORIGIN.pause * 2;
    let mut at = first + pause;
    for _ in 0..9 {
        assert_eq!((breaker.state(at), breaker.admit(bad, at)), (State::HalfOpen, None));
        // Nobody else came.
        at += pause;
        let trial = breaker.admit(bad, at).unwrap();
        breaker.failed(trial, Some(bad), at);
        assert_eq!(breaker.state(at + pause - ms(1)), State::Open);
        at += pause;
    }
    assert_eq!(breaker.admit(bad, at), None);
    let trial = breaker.admit(path(2), at).unwrap();
    breaker.good(trial, at);
    assert_eq!(breaker.state(at), State::Closed);
}
