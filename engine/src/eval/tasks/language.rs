//! Which language a text is in, as far as IFEval asks: by its script where only one of the languages has it, else by its
//! commonest words. A text that leaves it open has no language here; the reference program's `langdetect` always names
//! one.

/// True for a language that can be told, by its code of ISO 639-1.
pub(super) fn is_known(language: &str) -> bool {
    language == "ja"
        || OWN_SCRIPT.iter().any(|(.., own)| *own == language)
        || WORDS.iter().any(|(name, _)| *name == language)
        || ARABIC.iter().any(|(name, ..)| *name == language)
}

/// Scripts that one of the languages has for itself.
const OWN_SCRIPT: [(char, char, &str); 12] = [
    ('\u{0370}', '\u{03ff}', "el"),
    ('\u{0590}', '\u{05ff}', "he"),
    ('\u{0980}', '\u{09ff}', "bn"),
    ('\u{0a00}', '\u{0a7f}', "pa"),
    ('\u{0a80}', '\u{0aff}', "gu"),
    ('\u{0b80}', '\u{0bff}', "ta"),
    ('\u{0c00}', '\u{0c7f}', "te"),
    ('\u{0c80}', '\u{0cff}', "kn"),
    ('\u{0d00}', '\u{0d7f}', "ml"),
    ('\u{0e00}', '\u{0e7f}', "th"),
    ('\u{1100}', '\u{11ff}', "ko"),
    ('\u{ac00}', '\u{d7af}', "ko"),
];

/// Common words, above all those that hold sentences together.
const WORDS: [(&str, &str); 27] = [
    (
        "en",
        "the be to of and a in that have i it for not on with he as you do at this but his by from they we say her she or \
         an will my one all would there their what so up out if about who get which go me when make can like time no \
         just him know take into year your some could them see other than then now only its is are was were been has had \
         our how may more these those very any over such here where why let us also should dear please thank am don t s",
    ),
    (
        "de",
        "der die das und ist in zu den von mit sich des auf für nicht ein eine als auch es an werden aus er hat dass sie \
         nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch \
         man sein wurde wenn ich wir ihr mein du sehr kann dem im unser uns mir mich ihre ihnen kein keine diese dieser \
         dieses hier",
    ),
    (
        "fr",
        "le la les de des du un une et est en que qui dans pour pas sur au avec ce il elle je nous vous ils sont par plus \
         ne se son sa ses mais ou cette ces être avoir fait comme tout aux leur on y a ont était aussi bien très d l qu c \
         n s j mon ma mes votre notre",
    ),
    (
        "es",
        "el la los las de del que y en un una es por con no se su para al lo como más pero sus le ya o este sí porque esta \
         entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni contra otros \
         ese eso ante ellos e esto mí antes algunos qué unos yo otro otras otra él tanto esa estos mucho son está tu mi \
         ser fue era",
    ),
    (
        "pt",
        "o a os as de do da dos das que e em um uma é por com não se seu sua para ao no na nos nas como mais mas foi ele ela \
         já ou este esta entre quando muito sem sobre também até há onde quem desde todo ser são está você eu meu minha \
         seus suas pelo pela isso isto esse essa tem à às nem num numa nós eles",
    ),
    (
        "it",
        "il lo la i gli le di del della dei delle che e è in un una per con non si su da dal dalla al alla nel nella sono \
         come più ma anche questo questa se suo sua o ha ho hanno essere io tu noi loro molto quando dove chi cosa ci mi ti \
         vi degli ai sul sulla tra fra era stato ogni perché tutto tutti",
    ),
    (
        "nl",
        "de het een en van ik te dat die in is je niet hij zijn op aan met als voor had er maar om hem dan zou of wat mijn \
         men dit zo door over ze zich bij ook tot mij uit der daar haar naar heb hoe heeft hebben deze u want nog zal me zij \
         nu geen omdat iets worden wij we ons kan meer veel wordt",
    ),
    (
        "sv",
        "och att det i en jag hon som han på den med var sig för så till är men ett om hade de av icke mig du henne då sin nu \
         har inte hans honom skulle hennes där min man ej vid kunde något från ut när efter upp vi dem vara vad över än dig \
         kan sina här ha mot alla under någon eller allt mycket sedan ju denna själv detta åt utan varit hur ingen mitt ni",
    ),
    (
        "da",
        "og i jeg det at en den til er som på de med han af for ikke der var mig sig men et har om vi min havde ham hun nu over \
         da fra du ud sin dem os op man hans hvor eller hvad skal selv her alle vil blev kunne ind når være dog noget ville jo \
         deres efter ned skulle denne end dette mit også under have dig anden hende mine alt meget sit mod disse hvis af nogle",
    ),
    (
        "no",
        "og i jeg det at en et den til er som på de med han av ikke der så var meg seg men ett har om vi min mitt ha hadde hun \
         nå over da ved fra du ut sin dem oss opp man kan hans hvor eller hva skal selv sjøl her alle vil bli ble blitt kunne \
         inn når være kom noen noe ville deres etter ned skulle denne for deg si sine sitt mot å meget hvorfor dette uten \
         også mellom bare",
    ),
    (
        "fi",
        "ja on ei se että oli en hän mutta ovat olen joka kuin mitä myös niin nyt sen ole tämä kun he sitä jos voi siitä hyvin \
         vain ovat sekä olla minä sinä me te ne kanssa tai mukaan jälkeen ennen enemmän hänen minun sinun meidän tässä tämän \
         joita jotka jossa koska mikä missä miten ollut olisi kaikki vielä sitten nämä niitä niiden joten voit voimme myöskin \
         itse saa",
    ),
    (
        "sw",
        "na ya wa kwa ni katika za la kuwa cha hii hiyo kama yake lakini au hiki ambayo ambao sana huu huyo hata pia yao wao \
         watu mtu kila moja mimi sisi wewe yeye kutoka baada kabla si hakuna kuna vya mwa ili alikuwa walikuwa yangu yetu wetu \
         wangu wako yako hizi hayo zaidi bila kwamba wakati sasa tu hivyo vile mara tena ndani nje juu chini kwenye lake \
         ambapo kupata kufanya",
    ),
    (
        "vi",
        "và của là có được cho không các một trong người này đã với những để khi từ đến như ra về cũng tôi bạn trên nhiều vào \
         ở sẽ năm lại rất phải làm thì hay hơn đó mà theo nếu vì hoặc chúng ta họ anh em đang cần sau trước nào gì còn tại bởi \
         thể điều nên mình việc",
    ),
    (
        "id",
        "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut bisa ada mereka lebih kata \
         tahun sudah atau saat oleh menjadi orang ia telah adalah seperti sebagai bahwa dapat para harus namun kita dua satu \
         masih hari hanya mengatakan kepada kami setelah lain anda sangat banyak agar secara antara",
    ),
    (
        "tl",
        "ang ng sa na mga ay at si ni kay ko mo siya ako ka niya kami tayo sila hindi ito iyan iyon para kung may mayroon \
         wala lang din rin nang pa po ba naman dahil kapag isang isa bilang kanyang kanilang aming ating inyong kanya akin \
         upang pero o",
    ),
    (
        "pl",
        "w i z na do to nie się że jest o jak ale po co tak za od przez dla są czy już być ze było ma tylko może tym ich jego \
         jej ten ta te go która który które mnie mi ja ty my pan oraz gdy także bardzo był była przed pod nad bez kiedy gdzie",
    ),
    (
        "cs",
        "a v se na je že s z do to o i ve k ale jako za by po si jsou pro od který která které tak jeho být podle nebo jen než \
         už bylo byl byla při jsem jsme také není když až co může tím své však aby kde mezi má ho mu",
    ),
    (
        "ro",
        "și de în a la cu nu este că pe o un din pentru care se mai sunt fi au ca prin sau dar le i ce el ea ei lui fost avea \
         dintre după până sub fără foarte dacă când unde acest această acestea eu tu noi voi am ai are al ale lor cel cea să",
    ),
    (
        "tr",
        "bir ve bu da de için ile çok daha olan olarak gibi ne var o en kadar ama değil sonra mi her ben sen biz siz onlar ise \
         ya şey diye olduğu veya ki göre hem bana sana onun benim senin bizim tüm çünkü eğer nasıl neden zaman iyi şu",
    ),
    (
        "hu",
        "a az és hogy nem is egy ez van azt volt de meg már csak mint még ha vagy ezt el ki be fel le amely ami aki minden \
         nagyon én te ő mi ti ők lesz lehet kell sok majd után előtt között alatt szerint mert itt ott most",
    ),
    (
        "ca",
        "el la els les de del i que en un una per amb no és al als es més com però aquest aquesta o si són ser ha han va seu \
         seva dels pel pels quan on molt també sense sobre fins tot tots jo tu ell ella nosaltres ho hi perquè entre",
    ),
    (
        "ru",
        "и в не на я что он с как это по но они мы из у за то все так его же от для вы бы было была были быть есть только или \
         ее её мне когда уже если нет ни даже до во со ли очень можно может который которые которая где чтобы ты их нас вас о \
         также этот эта эти при под себя после после над через еще ещё к а",
    ),
    (
        "bg",
        "и на да се за от е в не са че с по като си то ще това до който която които но той тя ни ви ги го му й аз ти ние вие те \
         при след или със във към много може има няма беше бъде бил само още също когато къде как какво защото тази този тези \
         ако един една едно",
    ),
    (
        "uk",
        "і в не на я що він з як це по але вони ми із у за то все так його ж від для ви б було була були бути є тільки або її \
         мені коли вже якщо немає ні навіть до ти їх нас вас також цей ця ці при під після над через ще й та який які яка де щоб",
    ),
    (
        "hi",
        "के का की है में और से को हैं एक पर यह ने था कि नहीं भी लिए कर या हो इस थे गया तक तो जो वह अपने ही थी रहा साथ करने हम आप मैं \
         मेरे आपके आपको उनके किया कुछ जब सकते सकता होता होती होते रहे रही बहुत क्या वे करते करना दिया जाता हूँ हूं मुझे हमारे",
    ),
    (
        "mr",
        "आहे आणि या च्या हे ते मी आहेत होते होता होती नाही तर पण एक करून केले केली केला मध्ये साठी आम्ही तुम्ही त्या त्यांनी त्यांच्या \
         त्याच्या असे असा हा ही की व ला चा ची चे म्हणून आपल्या तुमच्या माझ्या आपण काय कसे करणे करा येथे खूप सर्व किंवा होऊ जे जर",
    ),
    (
        "ne",
        "छ र को मा का छन् पनि गर्न हो यो लागि भएको हुन्छ गर्ने तथा एक यस थियो भने हुने भन्ने म तपाईं हामी उनले गरेको छैन गर्छ सक्छ \
         भएका बाट लाई ले त्यो कुनै धेरै सबै आफ्नो तर वा गरी सँग मेरो हाम्रो हुन् छु गरेर अनि",
    ),
];
/// Arabic script: words, and letters that only one of the three writes.
const ARABIC: [(&str, &str, &str); 3] = [
    (
        "ar",
        "في من على إلى أن هذا هذه التي الذي عن مع لا ما كان كانت هو هي أو ثم قد كل بعد قبل بين حتى إذا لم لن أنا نحن أنت هم \
         ذلك تلك كما لكن و يا به له لها فيها عند غير أي",
        "ةىإأكي",
    ),
    (
        "fa",
        "و در به از که این را با است برای آن یک می خود تا بر هم نیز شد شده بود ما من شما او آنها کرد کند دارد باید اما یا \
         اگر هر همه بسیار ها های چه چون پس هستند است کنند بودند",
        "پچژگکی",
    ),
    (
        "ur",
        "کے کا کی ہے میں اور سے کو ہیں ایک پر یہ نے تھا کہ نہیں بھی لیے کر یا ہو اس تھے گیا تک تو جو وہ اپنے ہی تھی رہا ساتھ \
         ہم آپ میرے",
        "ٹڈڑںےہھ",
    ),
];

/// The language of a text, or none where that stays open: no script has six of ten letters, or common words are too few
/// or of several languages.
pub(super) fn detect(text: &str) -> Option<&'static str> {
    let letters: Vec<char> =
        text.chars().filter(|c| c.is_alphabetic() || ('\u{0900}'..='\u{0dff}').contains(c)).collect();
    let share = |is: &dyn Fn(char) -> bool| letters.iter().filter(|c| is(**c)).count() as f64 / letters.len() as f64;
    if letters.is_empty() {
        return None;
    }
    const MOST: f64 = 0.6;
    for language in ["el", "he", "bn", "pa", "gu", "ta", "te", "kn", "ml", "th", "ko"] {
        let of_it = |c: char| OWN_SCRIPT.iter().any(|(from, to, own)| *own == language && (*from..=*to).contains(&c));
        if share(&of_it) >= MOST {
            return Some(language);
        }
    }
    let kana = |c: char| ('\u{3040}'..='\u{30ff}').contains(&c);
    if share(&kana) >= 0.1 && share(&|c| kana(c) || ('\u{4e00}'..='\u{9fff}').contains(&c)) >= MOST {
        return Some("ja");
    }
    if share(&|c| matches!(c, '\u{0600}'..='\u{06ff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}')) >= MOST {
        return arabic(text);
    }
    let of_script: &[&str] = if share(&|c| ('\u{0900}'..='\u{097f}').contains(&c)) >= MOST {
        &["hi", "mr", "ne"]
    } else if share(&|c| ('\u{0400}'..='\u{04ff}').contains(&c)) >= MOST {
        &["ru", "bg", "uk"]
    } else if share(&|c| c.is_ascii_alphabetic() || matches!(c, '\u{00c0}'..='\u{024f}' | '\u{1e00}'..='\u{1eff}'))
        >= MOST
    {
        &[
            "en", "de", "fr", "es", "pt", "it", "nl", "sv", "da", "no", "fi", "sw", "vi", "id", "tl", "pl", "cs", "ro",
            "tr", "hu", "ca",
        ]
    } else {
        return None;
    };
    let words = words_of(text);
    let scored = of_script.iter().map(|language| {
        let list = WORDS.iter().find(|(name, _)| name == language).map_or("", |(_, list)| *list);
        let common: std::collections::HashSet<&str> = list.split_whitespace().collect();
        (*language, words.iter().filter(|word| common.contains(word.as_str())).count())
    });
    clear(scored.collect(), words.len())
}

/// Words in small letters. A mark belongs to the word.
fn words_of(text: &str) -> Vec<String> {
    let in_word = |c: char| c.is_alphanumeric() || ('\u{0900}'..='\u{097f}').contains(&c);
    text.split(|c| !in_word(c)).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn arabic(text: &str) -> Option<&'static str> {
    let words = words_of(text);
    let scored = ARABIC.iter().map(|(language, list, letters)| {
        let common: std::collections::HashSet<&str> = list.split_whitespace().collect();
        let own = |word: &&String| common.contains(word.as_str()) || word.chars().any(|c| letters.contains(c));
        // Urdu writes Persian's letters too.
        let urdu = |word: &&String| word.chars().any(|c| ARABIC[2].2.contains(c));
        (*language, words.iter().filter(|word| own(word) && (*language == "ur" || !urdu(word))).count())
    });
    clear(scored.collect(), words.len())
}

/// The language with the most common words, if they are enough and no other has nearly as many.
fn clear(mut scored: Vec<(&'static str, usize)>, words: usize) -> Option<&'static str> {
    scored.sort_by_key(|(_, hits)| std::cmp::Reverse(*hits));
    let [(language, hits), (_, second), ..] = scored[..] else { return None };
    let share = hits as f64 / words.max(1) as f64;
    let enough = if hits >= 3 { share >= 0.08 } else { hits == 2 && share >= if second == 0 { 0.15 } else { 0.3 } };
    (enough && hits as f64 >= 1.2 * second as f64).then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_of_the_file_is_told_from_a_few_sentences_and_from_its_neighbours() {
        for (language, text) in [
            ("en", "The weather is nice today and we are going to the park with our friends."),
            ("en", "THIS IS AN ANSWER IN CAPITALS, AND IT IS WRITTEN FOR YOU."),
            ("en", "my answer is yes."),
            ("de", "Das Wetter ist heute schön und wir gehen mit unseren Freunden in den Park."),
            ("pt", "O tempo está bom hoje e nós vamos ao parque com os nossos amigos, mas não para sempre."),
            ("es", "El tiempo es bueno hoy y vamos al parque con nuestros amigos, pero no para siempre."),
            ("it", "Il tempo è bello oggi e andiamo al parco con i nostri amici, ma non per sempre."),
            ("fr", "Le temps est beau et nous allons au parc avec les amis de la maison."),
            ("nl", "Het weer is vandaag mooi en wij gaan met onze vrienden naar het park."),
            ("fi", "Sää on tänään hyvä ja me menemme puistoon, mutta se ei ole niin helppoa kuin hän sanoi."),
            ("sw", "Hali ya hewa ni nzuri leo na sisi tunakwenda katika bustani pamoja na marafiki wetu."),
            ("vi", "Thời tiết hôm nay rất đẹp và chúng ta sẽ đi đến công viên với những người bạn."),
            ("ru", "Сегодня хорошая погода, и мы идём в парк, потому что это не так далеко, как он сказал."),
            ("bg", "Днес времето е хубаво и ние ще отидем в парка, защото това не е далеч от нас."),
            ("hi", "आज मौसम बहुत अच्छा है और हम अपने दोस्तों के साथ पार्क में जा रहे हैं।"),
            ("mr", "आज हवामान खूप छान आहे आणि आम्ही आपल्या मित्रांसोबत बागेत जात आहोत, पण ते दूर नाही."),
            ("ne", "आज मौसम राम्रो छ र हामी साथीहरूसँग पार्कमा जाने योजना गरेको छ, तर यो टाढा छैन भने हुन्छ।"),
            ("ar", "الطقس جميل اليوم ونحن ذاهبون إلى الحديقة مع أصدقائنا في هذا الوقت."),
            ("fa", "امروز هوا خوب است و ما با دوستان خود به پارک می رویم."),
            ("ur", "آج موسم بہت اچھا ہے اور ہم اپنے دوستوں کے ساتھ پارک میں جا رہے ہیں۔"),
            ("bn", "আজ আবহাওয়া খুব সুন্দর।"),
            ("pa", "ਅੱਜ ਮੌਸਮ ਬਹੁਤ ਵਧੀਆ ਹੈ।"),
            ("gu", "આજે હવામાન ખૂબ સરસ છે."),
            ("ta", "இன்று வானிலை நன்றாக உள்ளது."),
            ("te", "ఈ రోజు వాతావరణం చాలా బాగుంది."),
            ("kn", "ಇಂದು ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ."),
            ("th", "วันนี้อากาศดีมาก"),
            ("ko", "오늘 날씨가 매우 좋습니다."),
            ("ja", "今日はとてもいい天気です。"),
        ] {
            assert_eq!(detect(text), Some(language), "{text}");
            assert!(is_known(language), "{language}");
        }
    }

    #[test]
    fn a_text_that_leaves_its_language_open_has_none() {
        for text in ["", "123 456!", "Titanic", "Lorem xyzzy plugh frobnicate quux", "a b", "中文", "hello привет नमस्ते"]
        {
            assert_eq!(detect(text), None, "{text}");
        }
        assert!(!is_known("xx") && !is_known(""));
    }
}
