use super::*;
use proptest::prelude::*;

fn of(text: &str) -> Result<Document, Error> {
    read("film.en.vtt", &text.as_bytes().to_vec())
}

#[test]
fn a_file_of_many_habits_becomes_plain() {
    let given = "\u{feff}WEBVTT - made by hand\r\nKind: captions\r\n\r\nNOTE\r\nnot shown\r\n\r\n\
        STYLE\r\n::cue { color: red }\r\n\r\n2\r\n00:02.500 --> 00:04.000 line:90%  align:left\r\n\
        <i>second</i>\r\nline\r\n\r\n\r\n00:00:00.500-->00:00:01.750\r\nfirst\r\n\r\n\
        00:00:09.000 --> 00:00:09.000\r\nnever seen";
    let document = of(given).unwrap();
    insta::assert_snapshot!(document.render());
    assert_eq!(document.end_ms(), 4000);
    assert_eq!(of(&document.render()).unwrap(), document);
}

#[test]
fn errors_name_the_line() {
    let cue = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nok\n\n";
    let texts = [
        String::new(),
        "WEBVTT\n".to_owned(),
        "1\n00:00:01,000 --> 00:00:02,000\nSubRip\n".to_owned(),
        format!("{cue}00:00:01,000 --> 00:00:02,000\ntext\n"),
        format!("{cue}00:00:05.000 --> 00:00:02.000\ntext\n"),
        format!("{cue}00:00:05.000 --> 00:61:02.000\ntext\n"),
        format!("{cue}a name\nno times\n"),
        format!("{cue}00:00:02.000 --> 00:00:03.000\ntext\n00:00:04.000 --> 00:00:05.000\nglued\n"),
        "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n".to_owned(),
    ];
    let errors: Vec<String> = texts.iter().map(|text| of(text).unwrap_err().to_string()).collect();
    let bytes = b"WEBVTT\n\n00:00.000 --> 00:01.000\n\xff\n".to_vec();
    let not_text = read("film.en.vtt", &bytes).unwrap_err().to_string();
    insta::assert_snapshot!(format!("{}\n{not_text}", errors.join("\n")));
}

proptest! {
    #[test]
    fn no_text_panics(text in "(WEBVTT\n\n)?([0-9:. \r\nSTYLEaé>-]{0,40}( --> )?){0,6}") {
        if let Ok(document) = of(&text) {
            prop_assert_eq!(of(&document.render()).unwrap(), document);
        }
    }
}
