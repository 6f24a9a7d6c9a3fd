use super::super::bytes::boxes;
use super::*;

fn stsd(entry: &[u8]) -> Vec<u8> {
    make(*b"stsd", &[&[0; 4], &[0, 0, 0, 1], entry])
}

fn no_sample() -> Result<Vec<u8>, Fault> {
    panic!("no sample is needed")
}

fn parse(entry: &[u8], first: &dyn Fn() -> Result<Vec<u8>, Fault>) -> Result<Entry, Fault> {
    let whole = stsd(entry);
    let found = boxes(&whole).next().unwrap().unwrap();
    read(found, 1, first)
}

fn esds(object_type: u8, asc: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u8::try_from(part.len()).unwrap();
    let info = [&[5, length(asc)], asc].concat();
    let fixed = [object_type, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let config = [&fixed[..], &info].concat();
    let decoder = [&[4, length(&config)], config.as_slice()].concat();
    // An ES descriptor with a long form of its length, as QuickTime writes it.
    let stream = [&[0, 1, 0], decoder.as_slice()].concat();
    let head = [0, 0, 0, 0, 3, 0x80, 0x80, 0x80, length(&stream)];
    make(*b"esds", &[&head, &stream])
}

fn mp4a(version: u8, extra: usize, children: &[u8]) -> Vec<u8> {
    let mut fixed = vec![0; 28 + extra];
    fixed[9] = version;
    fixed[17] = 2;
    fixed[24..28].copy_from_slice(&(44100u32 << 16).to_be_bytes());
    make(*b"mp4a", &[&fixed, children])
}

#[test]
fn audio_configurations_give_codec_rate_and_channels() {
    let of = |asc: &[u8]| {
        let entry = parse(&mp4a(0, 0, &esds(0x40, asc)), &no_sample).unwrap();
        (entry.codec, entry.media)
    };
    let audio = |channels, sample_rate| Media::Audio { channels, sample_rate };
    // AAC-LC 44.1 kHz stereo; AAC-LC 48 kHz 5.1; HE-AAC 24 to 48 kHz; HE-AACv2 22.05 to 44.1.
    assert_eq!(of(&[0x12, 0x10]), ("mp4a.40.2".into(), audio(2, 44100)));
    assert_eq!(of(&[0x11, 0xb0]), ("mp4a.40.2".into(), audio(6, 48000)));
    assert_eq!(of(&[0x2b, 0x11, 0x88, 0]), ("mp4a.40.5".into(), audio(2, 48000)));
    assert_eq!(of(&[0xeb, 0x8a, 0x08, 0]), ("mp4a.40.29".into(), audio(2, 44100)));
}

#[test]
fn quicktime_audio_becomes_a_plain_entry() {
    let plain = parse(&mp4a(0, 0, &esds(0x40, &[0x12, 0x10])), &no_sample).unwrap();
    let wave = make(*b"wave", &[&esds(0x40, &[0x12, 0x10])]);
    let old = parse(&mp4a(1, 16, &wave), &no_sample).unwrap();
    assert_eq!((&old.codec, old.media), (&plain.codec, plain.media));
    assert_eq!(parse(&old.bytes, &no_sample).unwrap(), old);
}

fn hevc(kind: [u8; 4], arrays: &[u8]) -> Vec<u8> {
    let mut fixed = vec![0; video::HEADER];
    fixed[25] = 160;
    fixed[27] = 90;
    // Main, level 3.1, lengths of 4 bytes.
    let head = [1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8];
    let config = make(*b"hvcC", &[&head, &[0, 0, 0x0f], arrays]);
    make(kind, &[&fixed, &config, &make(*b"pasp", &[&[0, 0, 0, 1, 0, 0, 0, 1]])])
}

#[test]
fn parameter_sets_in_samples_move_to_the_header() {
    let units: [&[u8]; 4] = [&[0x40, 1, 7], &[0x42, 1, 8], &[0x44, 1, 9], &[0x26, 1, 0]];
    let sample: Vec<u8> = units.iter().flat_map(|unit| [&[0, 0, 0, 3], *unit].concat()).collect();
    let entry = parse(&hevc(*b"hev1", &[0]), &|| Ok(sample.clone())).unwrap();
    assert_eq!(entry.codec, "hvc1.1.6.L93.90");
    let whole = [
        &[3, 0xa0, 0, 1, 0, 3, 0x40, 1, 7, 0xa1, 0, 1, 0, 3, 0x42, 1, 8][..],
        &[0xa2, 0, 1, 0, 3, 0x44, 1, 9],
    ];
    assert_eq!(entry.bytes, hevc(*b"hvc1", &whole.concat()));
    assert_eq!(parse(&entry.bytes, &no_sample).unwrap(), entry);
    let without = parse(&hevc(*b"hev1", &[0]), &|| Ok(vec![0, 0, 0, 9, 1])).unwrap_err();
    assert!(matches!(without, Fault::Corrupt(_)));
}

#[test]
fn encrypted_tracks_name_what_they_hide() {
    let frma = make(*b"sinf", &[&make(*b"frma", &[b"hvc1"])]);
    let entry = make(*b"encv", &[&[0; video::HEADER], &frma]);
    match parse(&entry, &no_sample).unwrap_err() {
        Fault::Unsupported { what, .. } => {
            assert_eq!(what, "track 1: encrypted (encv of hvc1 (HEVC))");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn av1_says_its_colour_where_it_is_not_the_usual() {
    let mut fixed = vec![0; video::HEADER];
    fixed[25] = 160;
    fixed[27] = 90;
    let config = make(*b"av1C", &[&[0x81, 0x08, 0x4c, 0]]);
    let plain = make(*b"av01", &[&fixed, &config]);
    assert_eq!(parse(&plain, &no_sample).unwrap().codec, "av01.0.08M.10");
    let colr = make(*b"colr", &[b"nclx", &[0, 9, 0, 16, 0, 9, 0]]);
    let entry = parse(&make(*b"av01", &[&fixed, &config, &colr]), &no_sample).unwrap();
    assert_eq!(entry.codec, "av01.0.08M.10.0.110.09.16.09.0");
    assert!(matches!(entry.media, Media::Video { range: VideoRange::Pq, .. }));
}
