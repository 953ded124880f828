//! The HTTP API.

use crate::database::{Database, User};
use actix_web::error::{ErrorBadRequest, ErrorConflict, ErrorNotFound, ErrorServiceUnavailable};
use actix_web::{HttpResponse, Result, web};
use eclusa::followers::CommitSignal;
use eclusa::store::Store;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

pub struct State {
    pub database: Arc<dyn Database>,
    pub store: Arc<dyn Store>,
    /// Wakes the reactions, which would look for new events by themselves a little later.
    pub commits: CommitSignal,
}

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/signups", web::post().to(sign_up))
        .route("/signups/{id}", web::get().to(signup))
        .route("/domains", web::get().to(domains));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignUp {
    name: String,
    email: String,
}

/// Answers when the user and the event are committed. The mail is sent afterwards.
async fn sign_up(state: web::Data<State>, body: web::Json<SignUp>) -> Result<HttpResponse> {
    let SignUp { name, email } = body.into_inner();
    let user = User::new(&name, &email).map_err(ErrorBadRequest)?;
    let is_new = state.database.sign_up(&user).await.map_err(unavailable)?;
    if !is_new {
        return Err(ErrorConflict(format!("{email} has signed up already")));
    }
    state.commits.raise();
    Ok(HttpResponse::Created()
        .insert_header(("location", format!("/signups/{}", user.id)))
        .json(user))
}

/// A user, and whether all reactions to the sign-up have succeeded.
async fn signup(state: web::Data<State>, id: web::Path<Uuid>) -> Result<HttpResponse> {
    let user = state.database.user(*id).await.map_err(unavailable)?;
    let event = state.store.get(*id).await;
    let event = event.map_err(|error| unavailable(error.into()))?;
    let user = user.ok_or_else(|| ErrorNotFound("there is no such sign-up"))?;
    let processed = event.is_some_and(|event| event.processed);
    Ok(HttpResponse::Ok().json(json!({
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "processed": processed,
    })))
}

/// How many users each domain has.
async fn domains(state: web::Data<State>) -> Result<HttpResponse> {
    let domains = state.database.domains().await.map_err(unavailable)?;
    Ok(HttpResponse::Ok().json(json!({ "domains": domains })))
}

fn unavailable(error: anyhow::Error) -> actix_web::Error {
    tracing::error!("the database cannot be used: {error:#}");
    ErrorServiceUnavailable("the database cannot be used now; try again later")
}
