//! The audit log over HTTP.

mod dto;
mod export;

use crate::{
    ApiError,
    extract::Query,
    reply::{Listed, Reply, Streamed},
    rooms::Actor,
};
use actix_web::{http::header::HeaderName, web::Data};
use domain::audit::AuditService;
use dto::{AuditListQuery, AuditRowView, ExportFormat, ExportQuery, VerificationView};
use export::ExportMedia;
use paperclip::actix::{
    api_v2_operation,
    web::{self, ServiceConfig},
};

const X_AUDIT_HEAD: HeaderName = HeaderName::from_static("x-audit-head");

/// This room's routes.
pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(web::resource("/audit/logs").route(web::get().to(audit_log_list)))
        .service(web::resource("/audit/verify").route(web::get().to(audit_verify)))
        .service(web::resource("/audit/export").route(web::get().to(audit_export)));
}

/// Read the audit log
///
/// Newest first. Every filter that is given must match.
#[api_v2_operation(tags("audit"), operation_id = "audit_log_list")]
async fn audit_log_list(
    actor: Actor,
    audit: Data<AuditService>,
    query: Query<AuditListQuery>,
) -> Result<Listed<AuditRowView>, ApiError> {
    let (filter, page) = query.0.parse()?;
    let rows = audit.audit_log_list(&actor, filter, page).await?;
    Ok(Listed(rows.map(AuditRowView::from)))
}

/// Check the audit log
///
/// Every row's seal is computed again, and the heads that were noted outside the database are compared. A broken chain
/// is a finding, not a failure: look at `valid`.
#[api_v2_operation(tags("audit"), operation_id = "audit_verify")]
async fn audit_verify(actor: Actor, audit: Data<AuditService>) -> Result<Reply<VerificationView>, ApiError> {
    let found = audit.audit_verify(&actor).await?;
    if let Some(reason) = &found.reason {
        tracing::error!(row = found.broken_at, "the audit log is broken: {reason}");
    }
    Ok(Reply::new(VerificationView::from(found)))
}

/// Export the audit log
///
/// Oldest first, as JSON lines (the last line is the head of the chain) or as CSV. Texts in CSV that a spreadsheet would
/// take for a formula have an apostrophe before them.
#[api_v2_operation(tags("audit"), operation_id = "audit_export")]
async fn audit_export(
    actor: Actor,
    audit: Data<AuditService>,
    query: Query<ExportQuery>,
) -> Result<Streamed<ExportMedia>, ApiError> {
    audit.audit_export(&actor)?;
    let (format, filter) = query.0.parse();
    let head = audit.head().await?;
    let (media, name) = match format {
        ExportFormat::Jsonl => ("application/x-ndjson", "audit.jsonl"),
        ExportFormat::Csv => ("text/csv", "audit.csv"),
    };
    let mark = format!("{}:{}", head.seq, head.hash);
    let rows = export::stream(audit.into_inner(), filter, format, head);
    Ok(Streamed::new(media, rows).saved_as(name).with_header(X_AUDIT_HEAD, &mark))
}
