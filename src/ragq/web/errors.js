// Error responses of ragq.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Reads the message from an error response.
export function readError(status, text) {
  let message = `ragq answered with status ${status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // a proxy's own page: only the status is known
  }
  return new ApiError(status, message);
}
