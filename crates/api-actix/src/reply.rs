//! How handlers answer when all goes well. Each reply notes its status, body and headers for the `OpenAPI` document.

use std::marker::PhantomData;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, Responder, ResponseError,
    body::BoxBody,
    cookie::Cookie,
    http::{
        StatusCode,
        header::{self, HeaderName},
    },
    web::Bytes,
};
use domain::{
    Error,
    page::{Cursor, Page},
};
use futures_util::{Stream, StreamExt};
use paperclip::{
    actix::OperationModifier,
    v2::{models::DefaultOperationRaw, schema::Apiv2Schema},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    openapi::facts::{self, Answer, AnswerHeader, Content, Fact},
    problem::ApiError,
};

const X_TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
/// What an item of a list usually needs as JSON, in bytes.
const ROOM_PER_ITEM: usize = 768;
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Whether the answer is that of this request or of an earlier one with the same `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// This request did it.
    #[default]
    Fresh,
    /// An earlier one did it.
    Replayed,
}

/// 200 with a JSON document.
#[derive(Debug)]
pub struct Reply<T> {
    view: T,
    delivery: Delivery,
}

/// 200 with a JSON document that has a revision, told as `ETag`.
#[derive(Debug)]
pub struct Versioned<T> {
    view: T,
    revision: i64,
    delivery: Delivery,
}

/// What is answered when it is done, or 202 with a JSON document of what is still under way.
#[derive(Debug)]
pub enum Settled<D, U> {
    /// It is done.
    Done(D),
    /// It is not.
    Underway(U),
}

/// 201 with a JSON document, `Location`, and `ETag` if it has a revision.
#[derive(Debug)]
pub struct Created<T> {
    view: T,
    location: String,
    revision: Option<i64>,
    delivery: Delivery,
}

/// 204.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoContent;

/// 200 with a part of a list as a JSON array, `X-Total-Count` and the next page in `Link`.
#[derive(Debug)]
pub struct Listed<T>(pub Page<T>);

/// [`Listed`], out of JSON texts of `T` that were made before.
#[derive(Debug)]
pub struct Joined<T> {
    body: String,
    total: i64,
    next: Option<Cursor>,
    shown: PhantomData<T>,
}

/// What a [`Streamed`] answer may consist of.
pub trait Media {
    /// The media types, without parameters.
    const TYPES: &'static [&'static str];
    /// What is streamed.
    const DESCRIPTION: &'static str;
    /// The headers it comes with.
    const HEADERS: &'static [AnswerHeader] = &[];
}

/// 200 with a JSON document, or a stream of such documents.
#[derive(Debug)]
pub enum Readings<T, M> {
    /// One.
    One(T),
    /// One after the other.
    Stream(Streamed<M>),
}

impl<T, M: Media> Readings<T, M> {
    /// Answers with `stream`, which is of `media_type`, one of [`Media::TYPES`].
    pub fn stream<S, E>(media_type: &'static str, stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + 'static,
        E: Into<Box<dyn std::error::Error>> + 'static,
    {
        Self::Stream(Streamed::new(media_type, stream))
    }
}

impl<T, M: Media> Readings<T, M> {
    /// Has browsers save a stream as `name`, which must be plain ASCII.
    #[must_use]
    pub fn saved_as(self, name: &str) -> Self {
        match self {
            Self::One(_) => self,
            Self::Stream(stream) => Self::Stream(stream.saved_as(name)),
        }
    }
}

impl<T: Serialize, M> Responder for Readings<T, M> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::One(view) => Reply::new(view).respond_to(request),
            Self::Stream(stream) => stream.respond_to(request),
        }
    }
}

/// 200 with a JSON document and a cookie, set or taken back.
#[derive(Debug)]
pub struct WithCookie<T> {
    view: T,
    cookie: Option<Cookie<'static>>,
}

impl<T> WithCookie<T> {
    /// Answers with `view` and this cookie, if there is one.
    pub fn new(view: T, cookie: Option<Cookie<'static>>) -> Self {
        Self { view, cookie }
    }
}

impl<T: Serialize> Responder for WithCookie<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let mut builder = start(StatusCode::OK, Delivery::Fresh);
        if let Some(cookie) = self.cookie {
            builder.cookie(cookie);
        }
        json(&mut builder, &self.view)
    }
}

/// 200 with bytes that come as they are made.
#[derive(Debug)]
pub struct Streamed<M> {
    response: HttpResponse,
    media: PhantomData<M>,
}

impl<T> Reply<T> {
    /// Answers with `view`.
    pub fn new(view: T) -> Self {
        Self { view, delivery: Delivery::Fresh }
    }

    /// Tells whose answer it is.
    #[must_use]
    pub fn delivered(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }
}

impl<T> Versioned<T> {
    /// Answers with `view`, which is at `revision`.
    pub fn new(revision: i64, view: T) -> Self {
        Self { view, revision, delivery: Delivery::Fresh }
    }

    /// Tells whose answer it is.
    #[must_use]
    pub fn delivered(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }
}

impl<T> Created<T> {
    /// Answers with `view`, which can be had at `location` from now on.
    pub fn at(location: impl Into<String>, view: T) -> Self {
        Self { view, location: location.into(), revision: None, delivery: Delivery::Fresh }
    }

    /// Tells its revision.
    #[must_use]
    pub fn revision(self, revision: i64) -> Self {
        Self { revision: Some(revision), ..self }
    }

    /// Tells whose answer it is.
    #[must_use]
    pub fn delivered(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }
}

impl<T> Joined<T> {
    /// Answers with this page, of whose items `text` gives the JSON.
    pub fn new<I>(page: &Page<I>, text: impl Fn(&I) -> &str) -> Self {
        let mut body = String::with_capacity(page.items.iter().map(|item| text(item).len() + 1).sum::<usize>() + 2);
        body.push('[');
        for (n, item) in page.items.iter().enumerate() {
            body.extend([if n > 0 { "," } else { "" }, text(item)]);
        }
        body.push(']');
        Self { body, total: page.total, next: page.next.clone(), shown: PhantomData }
    }
}

impl<M: Media> Streamed<M> {
    /// Answers with `stream`, which is of `media_type`, one of [`Media::TYPES`].
    pub fn new<S, E>(media_type: &'static str, stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + 'static,
        E: Into<Box<dyn std::error::Error>> + 'static,
    {
        debug_assert!(M::TYPES.contains(&media_type), "{media_type} is not documented");
        let text = if media_type.starts_with("text/") { "; charset=utf-8" } else { "" };
        let response = HttpResponse::Ok()
            .content_type(format!("{media_type}{text}"))
            .streaming(stream.map(|item| item.map_err(Into::into)));
        Self { response, media: PhantomData }
    }

    /// Adds a header that [`Media::HEADERS`] announces.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = header::HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    /// Has browsers save it as `name`, which must be plain ASCII.
    #[must_use]
    pub fn saved_as(mut self, name: &str) -> Self {
        if let Ok(value) = header::HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
            self.response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
        }
        self
    }
}

impl<T: Serialize> Responder for Reply<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        json(&mut start(StatusCode::OK, self.delivery), &self.view)
    }
}

impl<T: Serialize> Responder for Versioned<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        json(start(StatusCode::OK, self.delivery).insert_header((header::ETAG, etag(self.revision))), &self.view)
    }
}

impl<D: Responder<Body = BoxBody>, U: Serialize> Responder for Settled<D, U> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::Done(done) => done.respond_to(request),
            Self::Underway(view) => json(&mut start(StatusCode::ACCEPTED, Delivery::Fresh), &view),
        }
    }
}

impl<D, U> Apiv2Schema for Settled<D, U> {}
impl<D: OperationModifier, U: JsonSchema> OperationModifier for Settled<D, U> {
    fn update_parameter(_: &mut DefaultOperationRaw) {}

    fn update_response(operation: &mut DefaultOperationRaw) {
        D::update_response(operation);
        facts::note(
            operation,
            Fact::Answer(Answer {
                status: 202,
                description: "It is under way.",
                content: Content::Json(facts::named::<U>),
                headers: &[],
            }),
        );
    }
}

impl<T: Serialize> Responder for Created<T> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        let mut builder = start(StatusCode::CREATED, self.delivery);
        builder.insert_header((header::LOCATION, self.location));
        if let Some(revision) = self.revision {
            builder.insert_header((header::ETAG, etag(revision)));
        }
        json(&mut builder, &self.view)
    }
}

impl Responder for NoContent {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::NoContent().finish()
    }
}

impl<T: Serialize> Responder for Listed<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        let mut builder = start_list(request, self.0.total, self.0.next.as_ref());
        sized_json(&mut builder, &self.0.items, self.0.items.len() * ROOM_PER_ITEM)
    }
}

impl<T> Responder for Joined<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        start_list(request, self.total, self.next.as_ref()).content_type("application/json").body(self.body)
    }
}

impl<M> Responder for Streamed<M> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.response
    }
}

fn start(status: StatusCode, delivery: Delivery) -> HttpResponseBuilder {
    let mut builder = HttpResponse::build(status);
    if delivery == Delivery::Replayed {
        builder.insert_header((IDEMPOTENCY_REPLAYED, "true"));
    }
    builder
}

fn json<T: Serialize>(builder: &mut HttpResponseBuilder, view: &T) -> HttpResponse {
    sized_json(builder, view, ROOM_PER_ITEM)
}

/// With `room` for the whole document there is no growing, which copies what is there already each time.
fn sized_json<T: Serialize>(builder: &mut HttpResponseBuilder, view: &T, room: usize) -> HttpResponse {
    let mut bytes = Vec::with_capacity(room);
    match serde_json::to_writer(&mut bytes, view) {
        Ok(()) => builder.content_type("application/json").body(bytes),
        Err(error) => ApiError::from(Error::internal(error)).error_response(),
    }
}

fn start_list(request: &HttpRequest, total: i64, next: Option<&Cursor>) -> HttpResponseBuilder {
    let mut builder = start(StatusCode::OK, Delivery::Fresh);
    builder.insert_header((X_TOTAL_COUNT, total.to_string()));
    if let Some(cursor) = next {
        let next = next_page(request.path(), request.query_string(), &cursor.encode());
        builder.insert_header((header::LINK, format!("<{next}>; rel=\"next\"")));
    }
    builder
}

fn etag(revision: i64) -> String {
    format!("\"{revision}\"")
}

/// The request's own path and query with another cursor.
fn next_page(path: &str, query: &str, cursor: &str) -> String {
    let others = query.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("cursor"));
    let pairs: Vec<&str> = others.collect();
    if pairs.is_empty() {
        format!("{path}?cursor={cursor}")
    } else {
        format!("{path}?{}&cursor={cursor}", pairs.join("&"))
    }
}

macro_rules! answers {
    ($(<$($generic:ident: $bound:path),*> $reply:ty => $status:literal $description:expr, $content:expr, $headers:expr;)+) => {$(
        impl<$($generic),*> Apiv2Schema for $reply {}
        impl<$($generic: $bound),*> OperationModifier for $reply {
            fn update_parameter(_: &mut DefaultOperationRaw) {}

            fn update_response(operation: &mut DefaultOperationRaw) {
                facts::note(operation, Fact::Answer(Answer {
                    status: $status,
                    description: $description,
                    content: $content,
                    headers: $headers,
                }));
            }
        }
    )+};
}

answers! {
    <T: JsonSchema> Reply<T> => 200 "Done.", Content::Json(facts::named::<T>), &[];
    <T: JsonSchema> Versioned<T> => 200 "The resource as it is now.", Content::Json(facts::named::<T>), &[AnswerHeader::Etag];
    <T: JsonSchema> WithCookie<T> => 200 "Done.", Content::Json(facts::named::<T>), &[AnswerHeader::SetCookie];
    <T: JsonSchema> Created<T> => 201 "Created.", Content::Json(facts::named::<T>), &[AnswerHeader::Location, AnswerHeader::Etag];
    <> NoContent => 204 "Done; there is nothing to tell.", Content::Empty, &[];
    <T: JsonSchema> Listed<T> => 200 "A page of the list.", Content::JsonArray(facts::named::<T>), &[AnswerHeader::TotalCount, AnswerHeader::Link];
    <T: JsonSchema> Joined<T> => 200 "A page of the list.", Content::JsonArray(facts::named::<T>), &[AnswerHeader::TotalCount, AnswerHeader::Link];
    <T: JsonSchema, M: Media> Readings<T, M> => 200 M::DESCRIPTION, Content::JsonOrRaw(facts::named::<T>, M::TYPES), M::HEADERS;
    <M: Media> Streamed<M> => 200 M::DESCRIPTION, Content::Raw(M::TYPES), M::HEADERS;
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn the_next_page_keeps_the_filters() {
        let check = |query: &str, expected: &str| assert_eq!(next_page("/s", query, "c2"), expected);
        check("", "/s?cursor=c2");
        check("limit=2", "/s?limit=2&cursor=c2");
        check("tag=a%3Ab&cursor=c1&tag=c", "/s?tag=a%3Ab&tag=c&cursor=c2");
    }
}
