//! Rendering the manifests of a 2 h title, each beside the limit: copying the same bytes.

use divan::Bencher;
use divan::counter::BytesCount;
use manifests::{dash, hls};
use nearcast_benches::film;

fn main() {
    divan::main();
}

fn measure(bencher: Bencher, render: impl Fn() -> String + Sync) {
    let bytes = render().len();
    bencher.counter(BytesCount::new(bytes)).bench(render);
}

/// The limit: allocate and copy what was rendered.
fn copy(bencher: Bencher, text: String) {
    bencher.counter(BytesCount::new(text.len())).bench(|| divan::black_box(&text).clone());
}

#[divan::bench]
fn a1_hls_multivariant(bencher: Bencher) {
    let index = film(2);
    measure(bencher, || hls::multivariant(divan::black_box(&index)));
}

#[divan::bench]
fn a2_hls_multivariant_limit_copy(bencher: Bencher) {
    copy(bencher, hls::multivariant(&film(2)));
}

#[divan::bench]
fn b1_hls_media_video(bencher: Bencher) {
    let index = film(2);
    measure(bencher, || hls::media(divan::black_box(&index.tracks[0])));
}

#[divan::bench]
fn b2_hls_media_limit_copy(bencher: Bencher) {
    copy(bencher, hls::media(&film(2).tracks[0]));
}

#[divan::bench]
fn c1_dash_mpd(bencher: Bencher) {
    let index = film(2);
    measure(bencher, || dash::mpd(divan::black_box(&index)));
}

#[divan::bench]
fn c2_dash_mpd_limit_copy(bencher: Bencher) {
    copy(bencher, dash::mpd(&film(2)));
}
