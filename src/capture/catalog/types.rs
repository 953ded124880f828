//! The kinds of types that are not built in: domains are their base types, arrays hold kinds of elements.

use crate::capture::CaptureError;
use crate::capture::value::ValueKind;
use std::collections::HashMap;
use tokio_postgres::Client;

/// How often a type may refer to another one. The catalog has no circles.
const MAX_STEPS: usize = 64;

/// A type of the catalog.
struct CatalogType {
    /// Of a domain.
    base: Option<u32>,
    /// Of an array, with what stands between elements.
    element: Option<(u32, u8)>,
    is_text: bool,
}

/// The kinds of those of `oids` that are not built in.
pub(super) async fn kinds(
    client: &Client,
    oids: Vec<u32>,
) -> Result<HashMap<u32, ValueKind>, CaptureError> {
    let mut types = HashMap::new();
    let mut asked = wanted(oids.iter().copied(), &types);
    while !asked.is_empty() {
        let rows = client
            .query(
                "SELECT t.oid, t.typtype = 'd' AS domain, t.typbasetype, t.typcategory = 'S' AS text, \
                 e.oid AS element, e.typdelim AS delimiter \
                 FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid WHERE t.oid = ANY ($1)",
                &[&asked],
            )
            .await?;
        let mut referred = Vec::new();
        for row in rows {
            let element = match row.try_get::<_, Option<u32>>("element")? {
                Some(oid) => Some((oid, row.try_get::<_, i8>("delimiter")? as u8)),
                None => None,
            };
            let base = row
                .try_get::<_, bool>("domain")?
                .then(|| row.try_get("typbasetype"));
            let found = CatalogType {
                base: base.transpose()?,
                element,
                is_text: row.try_get("text")?,
            };
            referred.extend(found.base.into_iter().chain(element.map(|(oid, _)| oid)));
            types.insert(row.try_get::<_, u32>("oid")?, found);
        }
        // One that was dropped meanwhile is not asked for again.
        let mut next = wanted(referred.into_iter(), &types);
        next.retain(|oid| !asked.contains(oid));
        asked = next;
    }
    let kind = |oid: &u32| (*oid, kind(*oid, &types, MAX_STEPS));
    Ok(types.keys().map(kind).collect())
}

fn wanted(oids: impl Iterator<Item = u32>, known: &HashMap<u32, CatalogType>) -> Vec<u32> {
    oids.filter(|oid| ValueKind::of_builtin(*oid).is_none() && !known.contains_key(oid))
        .collect()
}

fn kind(oid: u32, types: &HashMap<u32, CatalogType>, steps: usize) -> ValueKind {
    if let Some(builtin) = ValueKind::of_builtin(oid) {
        return builtin;
    }
    let (Some(found), Some(steps)) = (types.get(&oid), steps.checked_sub(1)) else {
        return ValueKind::Other;
    };
    match (found.base, found.element) {
        (Some(base), _) => kind(base, types, steps),
        (None, Some((element, delimiter))) => ValueKind::Array {
            element: Box::new(kind(element, types, steps)),
            delimiter,
        },
        (None, None) if found.is_text => ValueKind::Text,
        (None, None) => ValueKind::Other,
    }
}
