FROM python:3.11-slim

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /srv/rag
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY rag rag
COPY ingest ingest
COPY evals evals
COPY api api
RUN pip install --constraint constraints.txt .

# The process owns its data and nothing else.
RUN useradd --create-home --uid 10001 rag && install --directory --owner rag --group rag /var/lib/rag
USER rag
WORKDIR /var/lib/rag
ENV RAG_DATA_DIR=/var/lib/rag
VOLUME /var/lib/rag
EXPOSE 8000

# The first start exports the embedding model, which takes a while.
HEALTHCHECK --interval=15s --timeout=3s --start-period=90s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]

ENTRYPOINT ["rag"]
CMD ["serve", "--host", "0.0.0.0"]
