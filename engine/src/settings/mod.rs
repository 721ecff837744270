//! Reads settings: one TOML text plus `--set section.key=value`, with every problem at once. Knows no section.
//!
//! A section is declared once, beside what it configures, with [`settings!`]: key, type, default, range and one sentence
//! of help. From that declaration come the struct, its reader, its checks, the comments of a written file and the
//! description for other programs. What crosses keys or sections is the business of whoever puts the sections together.

mod bytes;
mod key;
mod reader;
mod section;
mod spelling;

pub use bytes::{ByteSize, ByteSizes};
pub(crate) use key::choice;
pub use key::{Choice, Composed, Key, Kind, Named, NumberOr, Range, Setting, Used};
pub use reader::{Origin, Reader};
pub(crate) use section::settings;
pub use section::{Problem, Settings};
pub use spelling::did_you_mean;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Error, Result};

    choice! {
        /// A colour.
        pub enum Colour {
            /// Like blood.
            Red = "red" as "red: warm",
            /// Like the sky.
            Blue = "blue",
        }
    }

    settings! {
        /// Paint.
        pub struct Paint in "paint" {
            /// Which paint it is.
            colour: Colour = Colour::Red, aliases = &["hue"];
            /// How much of it there is.
            litres: f64 = 0.5, range = Range::above(0.0);
            /// How often it is put on.
            coats: usize = 2, range = Range::within(1.0, 9.0), label = "number of coats";
            /// Parts of thinner, or whose.
            thinner: NumberOr<usize, Colour> = NumberOr::Number(3), range = Range::at_least(2.0);
            /// How bright it shines,
            /// in parts.
            gloss: Option<f64> = None, range = Range::until(0.0, 1.0), derived = "what the wall needs",
                used = &[("colour", &["blue"])];
            /// What is written on it.
            words: Option<String> = None;
            /// Colour of the words.
            ink: Option<Colour> = None;
        }
    }

    fn read(text: &str, set: &[(&str, &str)]) -> Result<Paint> {
        let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut reader = Reader::new(vec![Paint::section()], text, "wall.toml", &set);
        let paint = Paint::read(&mut reader, Paint::default());
        reader.finish().map(|()| paint)
    }

    fn problems(text: &str, set: &[(&str, &str)]) -> Vec<String> {
        match read(text, set) {
            Err(Error::Config { problems }) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn what_is_not_given_has_its_declared_default_or_the_profiles() {
        assert_eq!(read("", &[]).unwrap(), Paint::default());
        let profile = toml::from_str("[paint]\ncoats = 3\ngloss = 0.1\n").unwrap();
        let mut reader = Reader::new(vec![Paint::section()], "[paint]\ngloss = 0.2", "", &[]).with_profile(profile);
        let paint = Paint::read(&mut reader, Paint::default());
        assert!(!reader.has("paint", "coats"), "a profile's value is not given by anybody");
        assert_eq!((paint.coats, paint.gloss, paint.litres), (3, Some(0.2), 0.5));
        reader.finish().unwrap();
    }

    #[test]
    fn every_value_of_a_wrong_type_or_out_of_range_is_reported_with_its_line() {
        let found = problems("[paint]\ncolour = \"rad\"\nlitres = 0\ncoats = 10\ngloss = 1\n", &[("paint.hue", "1")]);
        assert_eq!(
            found,
            [
                "wall.toml:2: [paint] colour: \"rad\" is not one of red, blue; did you mean red?",
                "wall.toml:3: [paint] litres: 0 is not a finite number above 0",
                "wall.toml:4: [paint] coats: 10 is not a whole number from 1 to 9",
                "wall.toml:5: [paint] gloss: 1 is not at least 0 and below 1",
                "--set paint.hue: [paint] hue: unknown key; did you mean paint.colour?",
            ]
        );
        let found = problems("[paint]\ncolour = 3\nlitres = inf\ncoats = 1.5\n", &[("pant.coats", "1")]);
        assert_eq!(found[0], "wall.toml:2: [paint] colour: 3 is not one of red, blue");
        assert_eq!(found[1], "wall.toml:3: [paint] litres: inf is not a finite number above 0");
        assert_eq!(found[2], "wall.toml:4: [paint] coats: 1.5 is not a whole number from 1 to 9");
        let beyond = [("paint.coats", "99999999999999999999"), ("paint.thinner", "-1")];
        assert_eq!(
            problems("", &beyond),
            [
                "--set paint.coats: [paint] coats: \"99999999999999999999\" is not a whole number from 1 to 9",
                "--set paint.thinner: [paint] thinner: -1 is not a whole number of at least 2 or \"red\" or \"blue\"",
            ]
        );
        assert_eq!(
            problems("[paint]\nthinner = 1\n", &[])[0],
            "wall.toml:2: [paint] thinner: 1 is not a whole number of at least 2 or \"red\" or \"blue\""
        );
        assert_eq!(
            problems("", &[("paint.thinner", "rad")])[0],
            "--set paint.thinner: [paint] thinner: \"rad\" is not a whole number of at least 2 or \"red\" or \"blue\"; did you mean red?"
        );
        assert_eq!(read("", &[("paint.thinner", "blue")]).unwrap().thinner, NumberOr::Named(Colour::Blue));
        assert_eq!(read("[paint]\nthinner = 7", &[]).unwrap().thinner, NumberOr::Number(7));
        assert_eq!(found[3], "--set pant.coats: unknown section \"pant\"; did you mean paint? (sections: paint)");
    }

    #[test]
    fn whatever_may_be_left_out_is_taken_back_by_an_empty_value_and_all_else_is_not() {
        let file = "[paint]\ncoats = 3\ngloss = 0.2\nwords = \"wet\"\nink = \"red\"\n";
        let without = read(file, &[("paint.gloss", ""), ("paint.words", ""), ("paint.ink", "")]).unwrap();
        assert_eq!(without, Paint { coats: 3, ..Paint::default() });
        assert_eq!(read(file, &[("paint.ink", "none"), ("paint.gloss", "")]).unwrap().words.as_deref(), Some("wet"));
        assert_eq!(read(file, &[("paint.gloss", ""), ("paint.gloss", "0.3")]).unwrap().gloss, Some(0.3));
        assert_eq!(read("[paint]\ngloss = \"\"\nink = \"\"\n", &[]).unwrap(), Paint::default());
        let mut reader = Reader::new(vec![Paint::section()], file, "", &[("paint.gloss".into(), String::new())]);
        Paint::read(&mut reader, Paint::default());
        assert!(!reader.has("paint", "gloss"), "as if it had never been given");
        assert_eq!(
            problems("", &[("paint.coats", ""), ("paint.colour", ""), ("paint.glos", "")]),
            [
                "--set paint.coats: [paint] coats: \"\" is not a whole number from 1 to 9",
                "--set paint.colour: [paint] colour: \"\" is not one of red, blue",
                "--set paint.glos: [paint] glos: unknown key; did you mean gloss?",
            ]
        );
        assert_eq!(problems("", &[("paint.gloss", "none")]).len(), 1, "that is the name of a choice alone");
    }

    #[test]
    fn values_that_were_set_in_code_are_checked_like_those_of_a_file() {
        let odd = Paint { litres: f64::NAN, coats: 0, ..Paint::default() };
        let keys: Vec<_> = odd.problems().iter().map(|p| p.key).collect();
        assert_eq!(keys, ["litres", "coats"]);
        assert!(Paint::default().problems().is_empty());
    }

    #[test]
    fn a_section_says_of_every_key_what_it_is_and_what_is_allowed() {
        let paint = Paint::describe();
        assert_eq!((&paint["name"], &paint["help"]), (&json!("paint"), &json!("Paint.")));
        assert_eq!(
            paint["keys"][0],
            json!({
                "name": "colour", "label": "Colour", "help": "Which paint it is.", "type": "choice",
                "allowed": "one of red, blue", "default": "red",
                "choices": [
                    { "name": "red", "label": "red: warm", "help": "Like blood." },
                    { "name": "blue", "label": "blue", "help": "Like the sky." },
                ],
            })
        );
        assert_eq!(
            paint["keys"][4],
            json!({
                "name": "gloss", "label": "Gloss", "help": "How bright it shines, in parts.", "type": "number",
                "allowed": "at least 0 and below 1", "least": 0.0, "below": 1.0, "derived": "what the wall needs",
                "optional": true,
                "used": [{ "key": "colour", "values": ["blue"] }],
            })
        );
        assert_eq!(paint["keys"][2]["label"], "Number of coats");
    }

    #[test]
    fn a_commented_file_reads_back_and_explains_every_key() {
        let paint = Paint { coats: 4, gloss: None, ..Paint::default() };
        let text = paint.to_commented_toml();
        assert_eq!(read(&text, &[]).unwrap(), paint, "{text}");
        assert!(
            text.contains("# How often it is put on. Allowed: a whole number from 1 to 9. Default: 2.\ncoats = 4\n")
        );
        assert!(text.contains("Default: what the wall needs.\n# gloss =\n"), "{text}");
    }
}
