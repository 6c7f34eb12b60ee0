"""Chat templates that have a name. They are Jinja, which transformers renders with trimmed blocks.

One user turn and its answer are rendered as follows, where EOS stands for the tokenizer's end token:

    tulu    <|user|>\\n1+1=?\\n<|assistant|>\\n2EOS
    olmo    (a system turn, where the conversation has none)<|im_start|>user\\n1+1=?<|im_end|>\\n<|im_start|>assistant\\n2EOS
"""

# open-instruct's template skips turns of any other role without notice; here they are an error.
_TULU = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ raise_exception('the tulu template has no role ' + message['role']) }}"
    "{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    "{% endfor %}"
)
_NO_FUNCTIONS = " You do not currently have access to any functions. <functions></functions><|im_end|>\n"
# Every turn ends in <|im_end|> but the last one, which ends in the end token. So the text of the first turns alone does not begin
# the whole text, and the template marks the assistant's text with `generation` blocks.
_OLMO = (
    "{% if messages|selectattr('role', 'equalto', 'system')|list|length == 0 %}"
    "{{ '<|im_start|>system\nYou are OLMo, a helpful function-calling AI assistant built by Ai2. Your date cutoff is "
    "November 2024, and your model weights are available at https://huggingface.co/allenai." + _NO_FUNCTIONS + "' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% set functions = message.get('functions', none) %}"
    "{% if message['role'] == 'system' %}{{ '<|im_start|>system\n' + message['content'] }}"
    "{% if functions is not none %}{{ ' <functions>' + functions + '</functions><|im_end|>\n' }}"
    "{% else %}{{ '" + _NO_FUNCTIONS + "' }}{% endif %}"
    "{% elif message['role'] == 'user' %}{{ '<|im_start|>user\n' + message['content'] }}"
    "{% if functions is not none %}{{ '\n<functions>' + functions + '</functions>' }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% set last = loop.last %}"
    "{% generation %}{% if message.get('content', none) is not none %}{{ message['content'] }}{% endif %}"
    "{% if message.get('function_calls', none) is not none %}"
    "{{ '<function_calls>' + message['function_calls'] + '</function_calls>' }}{% endif %}"
    "{% if last %}{{ eos_token }}{% else %}{{ '<|im_end|>' }}{% endif %}{% endgeneration %}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% elif message['role'] == 'environment' %}{{ '<|im_start|>environment\n' + message['content'] + '<|im_end|>\n' }}"
    "{% else %}{{ raise_exception('the olmo template has no role ' + message['role']) }}"
    "{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    "{% endfor %}"
)
TEMPLATES: dict[str, str] = {"tulu": _TULU, "tulu_bos": "{{ bos_token }}" + _TULU, "olmo": _OLMO}
"""Templates by name, rendered as by open-instruct (dataset_transformation.py @ e6c3044a); tulu_bos is its tulu with --add_bos,
which OLMo 2 uses."""
