"""OpenAI's models: the valid values of `model`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from typing_extensions import TypedDict

from ragq.context import Context
from ragq.errors import NotFoundError
from ragq.http.input import CheckedRoute
from ragq.routes.context import ContextDependency, Tenant
from ragq.schemas.responses import MODEL

router = APIRouter(prefix="/v1/models", route_class=CheckedRoute)

CREATED_AT = 1_767_225_600  # 2026-01-01, a constant, because the endpoints do not report a time
CHAT_ENDPOINTS = ("/v1/responses", "/v1/chat/completions")
EMBEDDING_ENDPOINTS = ("/v1/embeddings",)


class Capabilities(TypedDict):
    """What a model is for, in Azure OpenAI's words."""

    chat_completion: bool
    embeddings: bool


class Model(TypedDict):
    """A valid value of `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["chat", "embedding"]
    capabilities: Capabilities
    supported_endpoints: list[str]


class Models(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[Model]


@router.get("")
async def list_models(context: ContextDependency, _tenant: Tenant) -> Models:
    """List the models."""
    return {"object": "list", "data": [_render_model(context, name) for name in _names(context)]}


@router.get("/{model:path}")
async def get_model(model: str, context: ContextDependency, _tenant: Tenant) -> Model:
    """Show a model."""
    if model not in _names(context) and not context.settings.accept_any_model:
        raise NotFoundError(
            f"The model '{model[:80]}' does not exist: GET /v1/models lists them.",
            code="model_not_found",
            param="model",
        )
    return _render_model(context, model)


def _names(context: Context) -> list[str]:
    return list(dict.fromkeys([MODEL, *_llm(context), context.settings.embedding_name]))


def _llm(context: Context) -> list[str]:
    settings = context.settings
    return [settings.llm_model] if settings.llm_base_url and settings.llm_model else []


def _render_model(context: Context, name: str) -> Model:
    """Render a model, with fields by which some clients sort models out; `ragq` and unknown names do everything."""
    is_any = name not in (*_llm(context), context.settings.embedding_name)
    chats, embeds = is_any or name in _llm(context), is_any or name == context.settings.embedding_name
    return {
        "id": name,
        "object": "model",
        "created": CREATED_AT,
        "owned_by": "ragq",
        "type": "chat" if chats else "embedding",
        "capabilities": {"chat_completion": chats, "embeddings": embeds},
        "supported_endpoints": [*(CHAT_ENDPOINTS if chats else ()), *(EMBEDDING_ENDPOINTS if embeds else ())],
    }
