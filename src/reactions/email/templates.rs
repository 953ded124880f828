//! Templates over an event, and their bounds.

use super::address_list;
use crate::reactions::Run;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use std::borrow::Cow;
use std::io;

/// Instructions that a template may take for one event: enough for a table of some thousand lines.
const FUEL: u64 = 100_000;
/// Nesting of loops and conditions, and depth of a recursive loop over the event.
const MAX_DEPTH: usize = 50;
/// Longest result, in bytes: loops over a large event could fill the memory.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Autoescaping of the templates whose results are lists of addresses.
const ADDRESSES: AutoEscape = AutoEscape::Custom(Cow::Borrowed("addresses"));

/// What a template may use of a run.
const VARIABLES: [&str; 7] = [
    "id",
    "eventType",
    "eventData",
    "userId",
    "sessionId",
    "timestamp",
    "runId",
];

/// Templates by name. The values in `html` are escaped for HTML, those in a template whose name begins
/// with `to` for a list of addresses.
pub(super) struct Templates(Environment<'static>);

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_auto_escape_callback(|name| match name {
            "html" => AutoEscape::Html,
            _ if name.starts_with("to") => ADDRESSES,
            _ => AutoEscape::None,
        });
        environment.set_formatter(write);
        Self(environment)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// The mistake and its line.
    pub(super) fn add(&mut self, name: &str, source: String) -> Result<(), String> {
        let mistake = |error: Error| {
            let line = error.line().unwrap_or(1);
            match error.detail() {
                Some(detail) => format!("is not a template, line {line}: {detail}"),
                None => format!("is not a template, line {line}: {}", error.kind()),
            }
        };
        self.0
            .add_template_owned(name.to_owned(), source)
            .map_err(mistake)?;
        let template = self.0.get_template(name).map_err(mistake)?;
        let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|variable| {
            !VARIABLES.contains(&variable.as_str())
                && self.0.globals().all(|(global, _)| global != variable)
        });
        unknown.sort();
        match unknown.first() {
            None => Ok(()),
            Some(unknown) => Err(format!(
                "uses {unknown:?}, which does not exist; there are {}",
                VARIABLES.join(", ")
            )),
        }
    }

    /// The result of a template for a run.
    ///
    /// # Errors
    /// Why there is none, in words that repeat nothing of the event.
    pub(super) fn render(&self, name: &str, variables: &Value) -> Result<String, String> {
        let mut result = Bounded::default();
        let rendered = self
            .0
            .get_template(name)
            .and_then(|template| template.render_captured_to(variables.clone(), &mut result));
        if let Err(error) = rendered {
            return Err(format!(
                "line {} of the template {name}: {}",
                error.line().unwrap_or(1),
                reason(&error)
            ));
        }
        String::from_utf8(result.0).map_err(|_| format!("the template {name} gives no UTF-8"))
    }
}

/// The variables of a run.
///
/// # Errors
/// The event's data are nested too deeply.
pub(super) fn variables(run: &Run) -> Result<Value, String> {
    let event = &run.event;
    let data: serde_json::Value = serde_json::from_str(event.event_data.get())
        .map_err(|_| "the event's data are nested too deeply for a template".to_owned())?;
    Ok(minijinja::context! {
        id => event.event_id.to_string(),
        eventType => event.event_type.as_str(),
        eventData => Serde(data),
        userId => event.user_id.as_deref(),
        sessionId => event.session_id.as_deref(),
        timestamp => event.timestamp.to_rfc3339(),
        runId => run.id(),
    })
}

/// Writes a value as a template prints it. Null is an error as undefined is: it would print as "None".
fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if *state.auto_escape() != ADDRESSES {
        return minijinja::escape_formatter(out, state, value);
    }
    if value.kind() != ValueKind::Seq {
        return Ok(write!(out, "{}", address_list::escape(&value.to_string()))?);
    }
    for item in value.try_iter()? {
        if item.is_none() || item.is_undefined() {
            return Err(ErrorKind::UndefinedError.into());
        }
        write!(out, "{}, ", address_list::escape(&item.to_string()))?;
    }
    Ok(())
}

/// What went wrong. Details of most kinds may quote values, so they are left out.
fn reason(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::UndefinedError, _) => {
            "the event has no such value, or null; \"is defined\" and \"is not none\" ask for it, the filter \
             \"default\" replaces it"
                .to_owned()
        }
        (ErrorKind::WriteFailure, _) => format!("the result is longer than {MAX_BYTES} bytes"),
        (ErrorKind::OutOfFuel, _) => format!("it takes more than {FUEL} steps"),
        (
            ErrorKind::UnknownFilter
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownMethod,
            Some(detail),
        ) => detail.to_owned(),
        (kind, _) => kind.to_string(),
    }
}

/// A result that refuses to grow beyond its bound.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(name: &str, source: &str, data: serde_json::Value) -> Result<String, String> {
        let mut templates = Templates::new();
        templates.add(name, source.to_owned())?;
        let variables = minijinja::context! { eventData => Serde(data), userId => () };
        templates.render(name, &variables)
    }

    #[test]
    fn html_is_escaped_and_text_is_not() {
        let data = json!({"name": "<b>&\"Ada\"</b>"});
        let source = "<p>{{ eventData.name }}</p>";
        let html = render("html", source, data.clone()).unwrap();
        assert!(
            html.starts_with("<p>&lt;b&gt;&amp;") && !html.contains("<b>"),
            "{html}"
        );
        assert_eq!(
            render("text", source, data).unwrap(),
            "<p><b>&\"Ada\"</b></p>"
        );
    }

    #[test]
    fn a_missing_value_is_an_error_with_its_line() {
        for source in [
            "Hello\n{{ eventData.name }}",
            "Hello\n{{ userId }}",
            "\n{% if eventData.name %}x{% endif %}",
            "\n{{ eventData.nothing }}",
            "\n{{ sessionId }}",
        ] {
            let error = render("text", source, json!({"nothing": null})).unwrap_err();
            assert!(
                error.starts_with("line 2 of the template text: the event has no"),
                "{error}"
            );
        }
        let source = "{{ eventData.name | default('you') }}";
        assert_eq!(render("text", source, json!({})).unwrap(), "you");
    }

    #[test]
    fn mistakes_are_found_without_an_event() {
        for (source, told) in [
            ("a\nb {{ userId", "line 2"),
            ("{% include 'x' %}", "line 1"),
            ("{{ evenData.name }}", "\"evenData\""),
            ("{% endif %}", "line 1"),
        ] {
            let error = Templates::new().add("text", source.to_owned()).unwrap_err();
            assert!(error.contains(told), "{source}: {error}");
        }
        let known = "{% for n in range(3) %}{{ n }}{{ loop.index }}{% endfor %}{{ runId }}";
        assert_eq!(Templates::new().add("text", known.to_owned()), Ok(()));
    }

    #[test]
    fn steps_length_and_depth_are_bounded() {
        let numbers = json!({"n": vec![0; 1000], "s": "x".repeat(100_000)});
        let loops = "{% for a in eventData.n %}{% for b in eventData.n %}{% endfor %}{% endfor %}";
        let error = render("text", loops, numbers.clone()).unwrap_err();
        assert!(error.contains("more than 100000 steps"), "{error}");
        let long = "{% for a in eventData.n %}{{ eventData.s }}{% endfor %}";
        let error = render("text", long, numbers).unwrap_err();
        assert!(error.contains("longer than 4194304 bytes"), "{error}");
        let mut nested = json!([]);
        for _ in 0..100 {
            nested = json!([nested]);
        }
        let recursive = "{% for a in eventData recursive %}{{ loop(a) }}{% endfor %}";
        assert!(render("text", recursive, nested).is_err());
    }

    #[test]
    fn a_value_is_one_address_and_a_list_is_several() {
        let data = json!({"a": "a@b.org, c@d.org", "all": ["a@b.org", "c@d.org"]});
        let addresses = |source: &str| {
            let list = render("to[0]", source, data.clone()).unwrap();
            address_list::parse(&list).unwrap().len()
        };
        assert_eq!(addresses("{{ eventData.a }}"), 1);
        assert_eq!(addresses("{{ eventData.a | safe }}"), 1);
        assert_eq!(addresses("{{ eventData.all }}"), 2);
        assert_eq!(
            addresses("{% for a in eventData.all %}{{ a }},\n{% endfor %}x@y.org"),
            3
        );
    }

    #[test]
    fn an_error_repeats_nothing_of_the_event() {
        let data = json!({"secret": "hunter2"});
        for source in [
            "{{ eventData.secret | int }}",
            "{{ eventData.secret + 1 }}",
            "{{ eventData.secret.x.y }}",
        ] {
            let error = render("text", source, data.clone()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
