"""Operations with a plain reference and faster paths: a folder an operation."""
