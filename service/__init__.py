"""HTTP around the runtime: FastAPI only lives here, torch never does."""
